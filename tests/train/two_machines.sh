# Two machines, as the network sees them: two network namespaces, joined by a virtual cable.
# Run by: unshare --map-root-user --net --mount sh two_machines.sh COMMAND...     once on each, with MACHINE=0 and MACHINE=1
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
MACHINE=1 ip netns exec other "$@" --node-rank 1 "$SCRIPT" $ARGUMENTS &
MACHINE=0 "$@" --node-rank 0 "$SCRIPT" $ARGUMENTS
wait $!
