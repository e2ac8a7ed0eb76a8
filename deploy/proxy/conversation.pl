# Conversations with HAProxy's runtime API, run inside the proxy's container by `runtime.py`, which
# gives the reasons for Perl. perl-base has no JSON and no Time::HiRes. The argument is the path of
# the master's socket, if it is another one.
#
# Standard input holds conversations until it ends: one instruction per line, separated by tabs, and
# an empty line after the last. The answer to each instruction ends with a record separator (0x1e).
# After the first failure or the last instruction follow the state of the servers, a record
# separator, a status and an end of transmission (0x04). The status is 0 if all was done, 1 if an
# instruction was refused (the last answer is the reason), and 3 if a wait was too long.
use strict;
use warnings;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();

my $MASTER = $ARGV[0] // '/run/master.sock';
my $TICKS = POSIX::sysconf(POSIX::_SC_CLK_TCK());
my $PAUSE = 0.02;
my $SILENCE = 5;
my $MAINTENANCE = 0x01 | 0x02 | 0x20 | 0x40;    # SRV_ADMF_MAINT of HAProxy's server.h
my $DRAIN       = 0x08 | 0x10;                  # SRV_ADMF_DRAIN
my $STATE       = 'show servers state app;show stat app 4 -1';

sub now { return (POSIX::times())[0] / $TICKS }

# Ask the worker with the newest configuration, through the master: right after a reload the previous
# worker still listens.
sub ask {
    my ($commands) = @_;
    # While it starts, HAProxy may accept a connection and never answer.
    local $SIG{ALRM} = sub { die "HAProxy does not answer\n" };
    alarm $SILENCE;
    my $answer = master(join ';', map {"\@1 $_"} split /;/, $commands);
    alarm 0;
    return $answer;
}

sub master {
    my ($commands) = @_;
    my $socket = IO::Socket::UNIX->new(Peer => $MASTER)
        or die "HAProxy does not answer: $!\n";
    print $socket "$commands\n";
    $socket->shutdown(1);    # HAProxy closes only after we do
    local $/;
    my $answer = <$socket>;
    $answer = '' unless defined $answer;
    $answer =~ s/\s+\z//;
    return $answer;
}

# { blue => { up, ready, idle, ... }, green => ... }
sub servers {
    my (%servers, @names);
    for (split /\n/, ask($STATE)) {
        if (/^# pxname/) { @names = split /,/; next }
        if (@names) {
            my %row;
            @row{@names} = split /,/, $_, -1;
            $servers{ $row{svname} }{sessions} = $row{scur} + $row{qcur} if $row{svname};
        }
        elsif (/^\d+ app /) {
            my @row = split / /;
            my ($slot, $operational, $admin) = @row[ 3, 5, 6 ];
            $servers{$slot}{up}    = $operational == 2;
            $servers{$slot}{ready} = !($admin & ($MAINTENANCE | $DRAIN));
        }
    }
    return \%servers;
}

sub serves { my ($server) = @_; return $server->{up} && $server->{ready} }

sub other { return $_[0] eq 'blue' ? 'green' : 'blue' }

# Poll until a condition holds `$times` times in a row.
sub await {
    my ($slot, $milliseconds, $times, $condition) = @_;
    my $deadline = now() + $milliseconds / 1000;
    my $held = 0;
    while (1) {
        $held = $condition->(servers()->{$slot}) ? $held + 1 : 0;
        return 1 if $held >= $times;
        return 0 if now() >= $deadline && !$held;
        select undef, undef, undef, $PAUSE;
    }
}

sub command {
    my ($command) = @_;
    my $answer = ask($command);
    die "$command: $answer\n" if $answer ne '';
    return '';
}

my %instructions = (
    ask => \&ask,
    do  => \&command,
    cat => sub {
        open my $file, '<', $_[0] or die "$_[0]: $!\n";
        local $/;
        my $content = <$file>;
        return defined $content ? $content : '';
    },
    reload => sub { return master('reload') },
    # Fails if this slot is the last serving slot.
    spare => sub {
        my $servers = servers();
        die "$_[0] is the only slot that serves\n"
            if serves($servers->{ $_[0] }) && !serves($servers->{ other($_[0]) });
        return '';
    },
    serving => sub {
        die "$_[0] does not serve\n" unless serves(servers()->{ $_[0] });
        return '';
    },
    # Sends no new requests to a ready slot. A slot in maintenance stays in maintenance.
    retire => sub {
        return servers()->{ $_[0] }{ready} ? command("set server app/$_[0] state drain") : '';
    },
    up => sub {
        return await(@_, 1, sub { $_[0]{up} }) ? '' : undef;
    },
    # HAProxy's health check, run now: HAProxy's own result may be a second old.
    answers => sub {
        my ($address, $port, $path, $host, $seconds) = @_;
        my $socket = IO::Socket::INET->new(PeerAddr => "$address:$port", Timeout => $seconds);
        return undef unless $socket;
        print $socket "GET $path HTTP/1.1\r\nHost: $host\r\nConnection: close\r\n\r\n";
        local $SIG{ALRM} = sub { $socket->shutdown(2) };
        alarm $seconds;
        my $status = <$socket> // '';
        alarm 0;
        return $status =~ m{^HTTP/1\.\d 200\b} ? '' : undef;
    },
    # Twice in a row: a request that the slot has just got may not be counted yet.
    idle => sub {
        return await(@_, 2, sub { $_[0]{sessions} == 0 }) ? '' : undef;
    },
);

sub follow {
    my ($line) = @_;
    my ($name, @arguments) = split /\t/, $line;
    my $answer = eval { $instructions{$name}->(@arguments) };
    return (1, $@) if $@;
    return defined $answer ? (0, $answer) : (3, "too long: $line");
}

$| = 1;
my $status = 0;
while (my $line = <STDIN>) {
    chomp $line;
    if ($line eq '') {
        print eval { ask($STATE) } || '', "\x1e$status\x04";
        $status = 0;
    }
    elsif (!$status) {
        ($status, my $answer) = follow($line);
        print $answer, "\x1e";
    }
}
