# type: ignore  # runs in the environment of each framework, which the checker does not see
"""A model on loopback that asks for one picture and does not give up before it has it.

`with ScriptedModel() as model:` answers as the OpenAI and the Google API do, and as a model does:
it repeats a call that failed word for word, follows a `pending` with `get_generation`, and ends
when it reads the address of a picture. Only the standard library is used, for this runs in the
environment of every framework.
"""

import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOOL, LOOK_UP = "generate_image", "get_generation"
ARGUMENTS = {"prompt": "a red fox in snow", "aspect_ratio": "16:9"}
END = "There it is."

MAX_CALLS = 12
"""after which even a patient model gives up"""

PICTURE = re.compile(r"http://127\.0\.0\.1:\d+/\S*images/")
PENDING = re.compile(r'get_generation with record_id [\\"]+([\w-]+)')


class ScriptedModel:
    """The model; `calls` are those that it made, each with what it read of it."""

    def __init__(self, arguments=ARGUMENTS):
        self.tools, self.calls = [], []
        self._arguments, self._read, self._lock = arguments, 0, threading.Lock()
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # the standard library's name
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                is_google = "contents" in body
                with model._lock:
                    call = model._answer_google(body) if is_google else model._answer_openai(body)
                if is_google:
                    self.send_google(call)
                elif body.get("stream"):
                    self.send_stream(openai(call))
                else:
                    self.send(json.dumps(openai(call)).encode(), "application/json")

            def send_google(self, call):
                content = json.dumps(google(call))
                if "stream" in self.path:
                    self.send(f"data: {content}\r\n\r\n".encode(), "text/event-stream")
                else:
                    self.send(content.encode(), "application/json")

            def send_stream(self, said):
                choice = said["choices"][0]
                delta = choice.pop("message")
                for index, call in enumerate(delta.get("tool_calls") or ()):
                    call["index"] = index
                chunk = {**said, "object": "chat.completion.chunk"}
                first = {**chunk, "choices": [{**choice, "delta": delta, "finish_reason": None}]}
                last = {**chunk, "choices": [{**choice, "delta": {}}]}
                lines = [f"data: {json.dumps(one)}\n\n" for one in (first, last)]
                self.send("".join([*lines, "data: [DONE]\n\n"]).encode(), "text/event-stream")

            def send(self, content, kind):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()

    def _answer_openai(self, body):
        tools = [tool["function"] for tool in body.get("tools") or ()]
        return self._next(tools, body["messages"])

    def _answer_google(self, body):
        tools = [
            one
            for group in body.get("tools") or ()
            for one in group.get("functionDeclarations", ())
        ]
        return self._next(tools, body["contents"])

    def _next(self, tools, messages):
        """The next call as (name, arguments); None: the model has said what it has to say."""
        names = {
            name: tool["name"]
            for name in (TOOL, LOOK_UP)
            for tool in tools
            if tool["name"].endswith(name)  # some put the server's name before it
        }
        if TOOL not in names:  # a question beside, say for a title
            return None
        self.tools, news = tools, messages[self._read :]
        self._read = len(messages)
        if not self.calls:
            return self._call(names, TOOL, self._arguments)
        news = [one for one in news if one["role"] not in ("assistant", "model")]
        last = self.calls[-1]
        last["result"] = json.dumps(news, ensure_ascii=False)
        last["seconds"] = round(time.monotonic() - last.pop("at"), 1)
        step = next_call(last["name"], last["arguments"], last["result"])
        if step is not None and len(self.calls) < MAX_CALLS:
            return self._call(names, *step)
        final = [tool["name"] for tool in tools if tool["name"] == "final_answer"]
        return (final[0], {"answer": END}) if final else None

    def _call(self, names, name, arguments):
        self.calls.append({"name": name, "arguments": arguments, "at": time.monotonic()})
        return names[name], arguments

    def report(self):
        """Prints what the model read, for the test: its tools, and the result of each call."""
        for call in self.calls:
            call.pop("at", None)
        print_report(self.tools, self.calls)


def next_call(name, arguments, result):
    """What a model calls after this result; None when it has its picture."""
    if PICTURE.search(result):
        return None
    pending = PENDING.search(result)
    if pending:
        return LOOK_UP, {"record_id": pending[1]}
    return name, arguments


def openai(call):
    """An answer of the chat completions API: a call of a tool, or the end."""
    message = {"role": "assistant", "content": None if call else END}
    if call:
        function = {"name": call[0], "arguments": json.dumps(call[1])}
        named = f"call_{time.monotonic_ns()}"
        message["tool_calls"] = [{"id": named, "type": "function", "function": function}]
    reason = "tool_calls" if call else "stop"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def google(call):
    """The same of the Gemini API."""
    part = {"functionCall": {"name": call[0], "args": call[1]}} if call else {"text": END}
    content = {"role": "model", "parts": [part]}
    return {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}]}


def read_task():
    """How to start our server: `command`, `env` and `cwd`."""
    return json.loads(sys.argv[1])


def print_report(tools, calls):
    """What the test reads: the tools as the model got them, and its calls with their results."""
    print(json.dumps({"tools": tools, "calls": calls}), flush=True)  # noqa: T201  # its purpose
