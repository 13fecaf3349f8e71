# The server that a node of docker-compose.yml starts on its assigned address and port: it answers every request with
# the node's name and address. It is Perl, because every Debian has enough of it.
use strict;
use warnings;
use IO::Socket::INET;

# The client may disconnect before the answer.
$SIG{PIPE} = 'IGNORE';

my ($id, $ip, $port) = @ENV{qw(ENLIST_ID ENLIST_IP ENLIST_PORT)};
my $listener = IO::Socket::INET->new(LocalAddr => $ip, LocalPort => $port, Listen => 64, ReuseAddr => 1)
    or die "cannot listen on $ip:$port: $!\n";
while (1) {
    my $client = $listener->accept or next;
    # A request ends with an empty line; a client that only connects, as a readiness check does, sends none.
    alarm 0;
    local $SIG{ALRM} = sub { close $client };
    alarm 2;
    while (defined(my $line = <$client>)) { last if $line =~ /^\r?\n$/ }
    alarm 0;
    print {$client} "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n$id at $ip:$port\n" if $client->opened;
    close $client;
}
