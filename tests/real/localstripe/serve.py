"""Runs localstripe on a free port of loopback, for one test: its own command listens everywhere, and keeps its objects in a file
that all of them share. Prints one line with the address, and ends with its standard input.
"""

import asyncio
import json
import sys

from aiohttp import web
from localstripe import resources

resources.Store.dump_to_disk = lambda self: None

from localstripe.server import app  # noqa: E402 (not before the store writes nothing)


async def main():
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(json.dumps({"event": "ready", "url": f"http://{host}:{port}"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


asyncio.run(main())
