"""Buys with pympp, which wraps the official MCP client and pays what it is asked for.

usage: python buyer.py NODE_WALLET '[{"name":"add","arguments":{…}}, …]' stdio CMD ARGS…
       python buyer.py NODE_WALLET '[…]' http URL
Prints one line: {"calls":[{"result":{…},"receipt":{…}} or {"error":"…"}],"payments":N,"spent":N}
"""

import asyncio
import json
import os
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client
from mpp import Credential
from mpp.extensions.mcp import McpClient
from mpp.methods import Method
from mpp.runtime import ClientMethod
from pydantic import BaseModel, ConfigDict


class Details(BaseModel):
    model_config = ConfigDict(extra="allow")
    invoice: str


class Request(BaseModel):
    model_config = ConfigDict(extra="allow")
    amount: str
    currency: str
    methodDetails: Details


class Payload(BaseModel):
    preimage: str


wallet_script, plan, kind, *target = sys.argv[1:]
payments = 0


async def wallet(*words):
    process = await asyncio.create_subprocess_exec("node", wallet_script, *words, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError("the wallet failed")
    return said.decode().strip()


async def create_credential(params):
    global payments
    payments += 1
    preimage = await wallet("pay", params.challenge.request["methodDetails"]["invoice"])
    credential = Credential(challenge=params.challenge.to_echo(), payload={"preimage": preimage})
    return credential.to_authorization()


def method():
    lightning = Method(name="lightning", intent="charge", request_model=Request, payload_model=Payload)
    return ClientMethod(method=lightning, create_credential=create_credential)


async def buy(streams):
    async with ClientSession(streams[0], streams[1]) as session:
        await session.initialize()
        client = McpClient(session, methods=[method()])
        calls = []
        for wanted in json.loads(plan):
            try:
                bought = await client.call_tool(wanted["name"], wanted["arguments"])
                receipt = bought.receipt
                calls.append({
                    "result": bought.result.model_dump(mode="json", by_alias=True, exclude_none=True),
                    "receipt": receipt and {"reference": receipt.reference, "status": receipt.status},
                })
            except Exception as error:  # what it is, is what the test looks at
                calls.append({"error": f"{type(error).__name__}: {error}"})
        return calls


async def main():
    before = int(await wallet("balance"))
    if kind == "http":
        async with streamablehttp_client(target[0]) as streams:
            calls = await buy(streams)
    else:
        server = StdioServerParameters(command=target[0], args=target[1:], env=dict(os.environ))
        async with stdio_client(server) as streams:
            calls = await buy(streams)
    spent = before - int(await wallet("balance"))
    print(json.dumps({"calls": calls, "payments": payments, "spent": spent}), flush=True)


asyncio.run(main())
