"""Buys with the official Python client: launches an MCP server as a desktop host would, lists its tools and calls some.

usage: python buyer.py '[{"name":"echo","arguments":{…}}, …]' CMD ARGS…
With BUYER_ANSWER=accept|decline|cancel it can be asked (MCP elicitation), and answers so.
Prints one line: {"server":{…},"tools":["…"],"calls":[{"result":{…}} or {"error":{"code":N,"message":"…"}}],
"asked":["…"],"prices":{"TOOL":{…}},"spending":{…}}
"""

import asyncio
import json
import os
import sys

from mcp import ClientSession, MCPError, StdioServerParameters, types
from mcp.client.stdio import stdio_client


def as_json(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def call(session, name, arguments):
    try:
        return {"result": as_json(await session.call_tool(name, arguments))}
    except MCPError as error:
        return {"error": {"code": error.error.code, "message": error.error.message}}


asked = []


async def answer(context, params):
    asked.append(params.message)
    action = os.environ["BUYER_ANSWER"]
    return types.ElicitResult(action=action, content={"pay": True} if action == "accept" else None)


async def main(plan, command, *arguments):
    server = StdioServerParameters(command=command, args=list(arguments), env=dict(os.environ))
    able = answer if "BUYER_ANSWER" in os.environ else None
    async with stdio_client(server) as streams, ClientSession(*streams, elicitation_callback=able) as session:
        introduction = await session.initialize()
        tools = (await session.list_tools()).tools
        read = await session.read_resource("tollkeeper://spending")
        calls = [await call(session, wanted["name"], wanted["arguments"]) for wanted in json.loads(plan)]
    report = {
        "server": as_json(introduction.server_info),
        "tools": [tool.name for tool in tools],
        "calls": calls,
        "asked": asked,
        "prices": {tool.name: as_json(tool)["_meta"]["tollkeeper/price"] for tool in tools if tool.meta},
        "spending": json.loads(read.contents[0].text),
    }
    print(json.dumps(report), flush=True)


asyncio.run(main(*sys.argv[1:]))
