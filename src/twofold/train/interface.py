"""The network interface that leads to another machine: the one whose address a connection there would come from.

gloo asks by itself for the address of this machine's own name, which many systems say is a loopback address: others then call in vain.
"""

import socket
import struct
import sys

SIOCGIFADDR = 0x8915  # Linux, netdevice(7): the IPv4 address of an interface
ADDRESS = slice(20, 24)  # where it stands in the answer, struct ifreq


def gloo_interface(host: str, port: int) -> str | None:
    """The name of the interface by which that host is reached, or None where it cannot be told (another system than Linux, IPv6)."""
    if sys.platform != "linux":
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((host, port))  # of a datagram socket: nothing is sent
        except OSError:
            return None
        own = socket.inet_aton(asking.getsockname()[0])
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # one without an address
                continue
            if answer[ADDRESS] == own:
                return name
    return None
