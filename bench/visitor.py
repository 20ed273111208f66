"""The page as its own JavaScript talks to the server, without a browser: press a button, read what comes back."""

import json
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing

BODY = {"Content-Type": "application/json"}


class Visitor:
    """One tab of the page: a session of its own, the values of the controls as the page starts with them."""

    def __init__(self, url: str, config: dict | None = None):
        self.url = f"{url}/gradio_api"
        if config is None:
            with urllib.request.urlopen(f"{url}/config", timeout=60) as answer:
                config = json.load(answer)
        self.config = config
        self.session = uuid.uuid4().hex
        self.parts = {part["id"]: part for part in config["components"]}

    def press(self, button: str, **values: object) -> Iterator[dict]:
        """Click the button of that element id; the server's messages. values: of controls, by their labels."""
        event = self.event(button)
        data = [self._value(self.parts[i], values) for i in event["inputs"]]
        return self.send(event["id"], data)

    def event(self, button: str, kind: str = "click") -> dict:
        """What the configuration says of the button's (first) event that the server answers."""
        (part,) = (i for i, part in self.parts.items() if part["props"].get("elem_id") == button)
        events = (event for event in self.config["dependencies"] if event["backend_fn"])
        return next(event for event in events if [part, kind] in event["targets"])

    def send(self, fn: int, data: list) -> Iterator[dict]:
        """Join the queue; messages until this event is over. Closing the iterator early is closing the tab."""
        body = {"data": data, "fn_index": fn, "session_hash": self.session, "event_data": None}
        request = urllib.request.Request(f"{self.url}/queue/join", json.dumps(body).encode(), BODY)
        with urllib.request.urlopen(request, timeout=60) as answer:
            self.last = json.load(answer)["event_id"]
        return self._messages(self.last)

    def cancel(self, fn: int) -> None:
        """What Pause does to the event that was sent last."""
        body = {"session_hash": self.session, "fn_index": fn, "event_id": self.last}
        request = urllib.request.Request(f"{self.url}/cancel", json.dumps(body).encode(), BODY)
        urllib.request.urlopen(request, timeout=60).close()

    def _messages(self, event: str) -> Iterator[dict]:
        query = urllib.parse.urlencode({"session_hash": self.session})
        with closing(urllib.request.urlopen(f"{self.url}/queue/data?{query}", timeout=300)) as stream:
            for line in stream:
                if not line.startswith(b"data:"):
                    continue
                message = json.loads(line[5:])
                if message.get("event_id", event) == event:
                    yield message
                if message["msg"] in ("process_completed", "close_stream", "unexpected_error"):
                    return

    def _value(self, part: dict, values: dict) -> object:
        props = part["props"]
        return values.get(props.get("label"), None if part["type"] == "state" else props.get("value"))


def states(messages: Iterator[dict]) -> Iterator[dict]:
    """What the player is told by a run's messages: one state a step. All but the first come as edits of the last."""
    for message in messages:
        value, *_ = (message.get("output") or {}).get("data") or [None]
        if isinstance(value, list) and value:
            value = value[-1][-1]
        if message["msg"] == "process_generating" and isinstance(value, str):
            yield json.loads(value)
