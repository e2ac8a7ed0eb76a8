"""The service's door, for gunicorn and for the ``flask`` command."""

import sys

from amani_app import create_app
from amani_app.settings import SettingsError

try:
    app = create_app()
except SettingsError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
