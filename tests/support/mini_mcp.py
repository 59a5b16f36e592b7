#!/usr/bin/env python3
"""A small MCP server on stdin and stdout, for tests: standard library only.

Tools: add, echo, slow (reports progress until released or cancelled), fail, crash, count, env, noise, ask, record, big
(a text of so many bytes), size (of a text), steps (reports so much progress).
`count` keeps its number in the file named by MINI_MCP_COUNT, so that it survives a crash. `record` writes one line per
execution into the file named by MINI_MCP_RECORD, with MINI_MCP_RUN, and so do the beginning and the end of this program.
"""

import json
import os
import sys
import threading
import time

write_lock = threading.Lock()
cancelled = set()
subscribed = []


def say(message):
    line = json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":"))
    with write_lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def text(value, is_error=False):
    result = {"content": [{"type": "text", "text": str(value)}]}
    if is_error:
        result["isError"] = True
    return result


def counted():
    path = os.environ.get("MINI_MCP_COUNT")
    if not path:
        return 0
    with open(path, "a") as file:
        file.write("x")
    return os.path.getsize(path)


def record(*words):
    """One line, written at once: what is in the file has happened."""
    path = os.environ.get("MINI_MCP_RECORD")
    if path:
        with open(path, "a") as file:
            file.write(" ".join(map(str, (*words, os.environ.get("MINI_MCP_RUN", 0)))) + "\n")


def recorded(request_id, arguments):
    record("call", arguments["call"])
    time.sleep(arguments.get("ms", 0) / 1000)
    say({"id": request_id, "result": text(arguments["call"])})


def slow(request_id, arguments, token):
    """Reports progress until the file named by `until` is there."""
    for step in range(1, 1000):
        if token is not None:
            params = {"progressToken": token, "progress": step, "message": str(arguments.get("label"))}
            say({"method": "notifications/progress", "params": params})
        if request_id in cancelled:
            return
        if os.path.exists(arguments["until"]):
            break
        time.sleep(0.05)
    say({"id": request_id, "result": text(arguments.get("label"))})


def call(request_id, params):
    name = params.get("name")
    arguments = params.get("arguments") or {}
    token = (params.get("_meta") or {}).get("progressToken")
    if name == "add":
        counted()
        return text(arguments["a"] + arguments["b"])
    if name == "echo":
        return text(arguments.get("text"))
    if name == "slow":
        threading.Thread(target=slow, args=(request_id, arguments, token), daemon=True).start()
        return None
    if name == "record":
        threading.Thread(target=recorded, args=(request_id, arguments), daemon=True).start()
        return None
    if name == "fail":
        return text("it did not work", is_error=True)
    if name == "crash" and arguments.get("leaves"):
        # Takes no more requests, and answers this one with its last words.
        os.close(0)
        open(arguments["leaves"], "w").close()
        time.sleep(0.3)
        say({"id": request_id, "result": text("last words")})
        os._exit(0)
    if name == "crash":
        if arguments.get("once") and os.path.exists(arguments["once"]):
            return text("survived")
        if arguments.get("once"):
            open(arguments["once"], "w").close()
        sys.stderr.write("mini_mcp: crashing on purpose\n")
        sys.stderr.flush()
        os._exit(3)
    if name == "count":
        return text(counted())
    if name == "env":
        return text(os.environ.get(arguments["name"], "(unset)"))
    if name == "pid":
        return text(os.getpid())
    if name == "noise":
        sys.stdout.write("this is not JSON\n{\"jsonrpc\":\"2.0\"}\n")
        return text("made some noise")
    if name == "big":
        counted()
        return text("x" * arguments["bytes"])
    if name == "size":
        counted()
        return text(len(arguments["text"].encode()))
    if name == "steps":
        for step in range(1, arguments["steps"] + 1 if token is not None else 1):
            params = {"progressToken": token, "progress": step, "total": arguments["steps"]}
            say({"method": "notifications/progress", "params": params})
            # The official client drops progress that arrives together with the answer.
            time.sleep(0.05)
        return text(arguments["steps"])
    if name == "changed":
        say({"method": "notifications/" + arguments["list"] + "/list_changed"})
        return text("changed")
    if name == "touch":
        for uri in subscribed:
            say({"method": "notifications/resources/updated", "params": {"uri": uri}})
        return text("touched")
    raise KeyError("unknown tool " + str(name))


def tool(name, properties=None, required=()):
    schema = {"type": "object", "properties": properties or {}, "required": list(required)}
    return {"name": name, "description": "The tool " + name, "inputSchema": schema}


NUMBER = {"type": "number"}
TEXT = {"type": "string"}
TOOLS = [
    tool("add", {"a": NUMBER, "b": NUMBER}, ["a", "b"]),
    tool("echo", {"text": TEXT}),
    tool("slow", {"until": TEXT, "label": TEXT}),
    tool("fail"),
    tool("crash", {"once": TEXT, "leaves": TEXT}),
    tool("count"),
    tool("env", {"name": TEXT}),
    tool("pid"),
    tool("noise"),
    tool("touch"),
    tool("record", {"call": NUMBER, "ms": NUMBER}, ["call"]),
    tool("big", {"bytes": NUMBER}, ["bytes"]),
    tool("size", {"text": TEXT}, ["text"]),
    tool("steps", {"steps": NUMBER}, ["steps"]),
    tool("changed", {"list": TEXT}, ["list"]),
]


def answer(request_id, method, params):
    if method == "initialize":
        return {
            "protocolVersion": params.get("protocolVersion", "2025-06-18"),
            "capabilities": {"tools": {"listChanged": True}, "prompts": {}, "resources": {"subscribe": True},
                             "completions": {}},
            "serverInfo": {"name": "mini-mcp", "version": "1.0"},
        }
    if method == "ping":
        return {}
    if method == "tools/list":
        # Two pages, so that whoever lists must follow the cursor.
        if params.get("cursor") == "2":
            return {"tools": TOOLS[5:]}
        return {"tools": TOOLS[:5], "nextCursor": "2"}
    if method == "prompts/list":
        return {"prompts": [{"name": "greet", "arguments": [{"name": "who"}]}]}
    if method == "prompts/get":
        who = (params.get("arguments") or {}).get("who", "you")
        return {"messages": [{"role": "user", "content": {"type": "text", "text": "Greet " + who}}]}
    if method == "resources/list":
        return {"resources": [{"uri": "mini://one", "name": "one"}]}
    if method == "resources/templates/list":
        return {"resourceTemplates": [{"uriTemplate": "mini://item/{id}", "name": "item"}]}
    if method == "resources/read":
        return {"contents": [{"uri": params["uri"], "text": "read " + params["uri"]}]}
    if method == "resources/subscribe":
        subscribed.append(params["uri"])
        return {}
    if method == "resources/unsubscribe":
        subscribed.remove(params["uri"])
        return {}
    if method == "completion/complete":
        return {"completion": {"values": ["you", "me"]}}
    if method == "tools/call":
        return call(request_id, params)
    raise NotImplementedError(method)


def main():
    sys.stderr.write("mini_mcp: ready\n")
    sys.stderr.flush()
    initialized = False
    for line in sys.stdin:
        message = json.loads(line)
        method, params = message.get("method"), message.get("params") or {}
        if method == "notifications/cancelled":
            cancelled.add(params.get("requestId"))
        if "id" not in message or method is None:
            continue
        request_id = message["id"]
        if method == "initialize":
            # One session, whoever the clients are.
            if initialized:
                say({"id": request_id, "error": {"code": -32600, "message": "initialized twice"}})
                continue
            initialized = True
        try:
            result = answer(request_id, method, params)
            if result is not None:
                say({"id": request_id, "result": result})
        except NotImplementedError:
            say({"id": request_id, "error": {"code": -32601, "message": "Method not found"}})
        except Exception as error:
            say({"id": request_id, "error": {"code": -32602, "message": str(error)}})


record("begins")
try:
    main()
finally:
    record("ends")
