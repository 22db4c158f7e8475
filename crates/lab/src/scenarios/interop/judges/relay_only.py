"""Two peer connections of aiortc that may talk through relays alone: messages over a data channel, there and back.

Arguments: TURN URI, user name, password, number of messages. Prints one JSON object with what was counted. Certificates
of turns: servers are checked against SSL_CERT_FILE.
"""

import asyncio
import json
import sys
import time

from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
)

LIMIT = 20


def message(index):
    """From a few bytes to more than fit into one datagram."""
    return f"{index}:".ljust(10 + 37 * index, "x")


def candidate_types(description):
    lines = [line for line in description.sdp.splitlines() if line.startswith("a=candidate:")]
    return sorted({line.split(" typ ")[1].split()[0] for line in lines})


async def visit(uri, username, password, count):
    server = RTCIceServer(urls=uri, username=username, credential=password)
    configuration = RTCConfiguration(
        iceServers=[server], iceTransportPolicy=RTCIceTransportPolicy.RELAY
    )
    near, far = RTCPeerConnection(configuration), RTCPeerConnection(configuration)
    opened, finished, echoes = asyncio.Event(), asyncio.Event(), []

    @far.on("datachannel")
    def on_datachannel(channel):
        channel.on("message", channel.send)

    begin = time.monotonic()
    channel = near.createDataChannel("lab")
    channel.on("open", opened.set)

    @channel.on("message")
    def on_message(data):
        echoes.append(data)
        if len(echoes) == count:
            finished.set()

    try:
        await near.setLocalDescription(await near.createOffer())
        await far.setRemoteDescription(near.localDescription)
        await far.setLocalDescription(await far.createAnswer())
        await near.setRemoteDescription(far.localDescription)
        types = candidate_types(near.localDescription) + candidate_types(far.localDescription)
        await asyncio.wait_for(opened.wait(), LIMIT)
        opened_at = time.monotonic()
        for index in range(count):
            channel.send(message(index))
        await asyncio.wait_for(finished.wait(), LIMIT)
        return {
            "open": (opened_at - begin) * 1e3,
            "exchange": (time.monotonic() - opened_at) * 1e3,
            "received": sum(echo == message(index) for index, echo in enumerate(echoes)),
            "types": types,
        }
    finally:
        await near.close()
        await far.close()


def main():
    uri, username, password, count = sys.argv[1:]
    print(json.dumps(asyncio.run(visit(uri, username, password, int(count)))))


main()
