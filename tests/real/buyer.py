"""Buys with the official Python client: launches an MCP server as a desktop host would, lists its tools and calls some.

usage: python buyer.py '[{"name":"echo","arguments":{…}}, …]' CMD ARGS…
Prints one line: {"server":{…},"tools":["…"],"calls":[{"result":{…}} or {"error":{"code":N,"message":"…"}}]}
"""

import asyncio
import json
import os
import sys

from mcp import ClientSession, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client


def as_json(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def call(session, name, arguments):
    try:
        return {"result": as_json(await session.call_tool(name, arguments))}
    except MCPError as error:
        return {"error": {"code": error.error.code, "message": error.error.message}}


async def main(plan, command, *arguments):
    server = StdioServerParameters(command=command, args=list(arguments), env=dict(os.environ))
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        introduction = await session.initialize()
        tools = (await session.list_tools()).tools
        calls = [await call(session, wanted["name"], wanted["arguments"]) for wanted in json.loads(plan)]
    report = {
        "server": as_json(introduction.server_info),
        "tools": [tool.name for tool in tools],
        "calls": calls,
    }
    print(json.dumps(report), flush=True)


asyncio.run(main(*sys.argv[1:]))
