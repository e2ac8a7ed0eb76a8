"""What the use cases need from outside, as protocols beside the errors they may raise."""
