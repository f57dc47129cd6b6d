"""Imported by every python process that finds this folder: forbids and notes use of the network."""

import os
import sys

_OUTGOING = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}


def _refuse(event: str, args: tuple) -> None:
    if event not in _OUTGOING:
        return
    where = args[0] if event.startswith("socket.get") else args[1]
    if event == "socket.connect" and isinstance(where, (str, bytes)):
        return  # a socket of this machine's file system
    with open(os.environ["NETWORK_REPORT"], "a") as report:
        report.write(f"{where}\n")
    raise PermissionError(f"the network is not to be used: {event} {where}")


sys.addaudithook(_refuse)
