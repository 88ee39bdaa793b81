# type: ignore  # runs in the environment of each framework, which the checker does not see
"""A model on loopback that calls one tool and then says something, and keeps what it was told.

`with ScriptedModel(...) as model:` answers as the OpenAI and the Google API do; only the standard
library is used, for this runs in the environment of every framework.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOOL = "generate_image"
ARGUMENTS = {"prompt": "a red fox in snow", "aspect_ratio": "16:9", "seed": 7}


class ScriptedModel:
    """The model; `requests` are the bodies that it got, `base_url` is where it is."""

    def __init__(self, arguments=ARGUMENTS, tool=TOOL):
        self.requests = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):  # the standard library's name
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                model.requests.append(body)
                answer = google if "contents" in body else openai
                said = answer((tool, arguments) if len(model.requests) == 1 else None)
                if body.get("stream"):
                    self.send_stream(said)
                    return
                self.send(json.dumps(said).encode(), "application/json")

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

    def report(self):
        """Prints what the model read, for the test: its tools, and the result of its call."""
        first, last = self.requests[0], self.requests[-1]
        if "contents" in first:
            tools = [
                one for group in first["tools"] for one in group.get("functionDeclarations", ())
            ]
            news = last["contents"][len(first["contents"]) :]
        else:
            tools = [tool["function"] for tool in first["tools"]]
            news = last["messages"][len(first["messages"]) :]
        print_report(tools, json.dumps(news, ensure_ascii=False))


def openai(call):
    """An answer of the chat completions API: a call of a tool, or the end."""
    message = {"role": "assistant", "content": None if call else "There it is."}
    if call:
        function = {"name": call[0], "arguments": json.dumps(call[1])}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
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
    part = (
        {"functionCall": {"name": call[0], "args": call[1]}} if call else {"text": "There it is."}
    )
    content = {"role": "model", "parts": [part]}
    return {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}]}


def read_task():
    """How to start our server: `command`, `env` and `cwd`."""
    return json.loads(sys.argv[1])


def print_report(tools, result):
    """What the test reads: the tools as the model got them, the result of its call as text."""
    print(json.dumps({"tools": tools, "result": result}))  # noqa: T201  # its purpose
