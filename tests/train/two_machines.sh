# Two machines, as the network sees them: two network namespaces, joined by a virtual cable.
# Run by: unshare --map-root-user --net --mount sh two_machines.sh COMMAND...
# On each: COMMAND... --node-rank 0 or 1 $SCRIPT $ARGUMENTS. Without a command only the network is made.
set -e
mount -t tmpfs none /run
mkdir -p /run/netns
ip link set lo up
ip netns add other
ip link add cable0 type veth peer name cable1 netns other
ip addr add 10.77.0.1/24 dev cable0
ip link set cable0 up
ip -n other addr add 10.77.0.2/24 dev cable1
ip -n other link set cable1 up
ip -n other link set lo up
[ $# -gt 0 ] || exit 0
ip netns exec other "$@" --node-rank 1 "$SCRIPT" $ARGUMENTS &
"$@" --node-rank 0 "$SCRIPT" $ARGUMENTS
wait $!
