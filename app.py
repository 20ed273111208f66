"""Start the app: python app.py [--port 7860]. Every option is also an environment variable (DD_PORT, DD_HOST, ...)."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin would starve the web server on two cores
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")  # Gradio makes statistics of so many after every call
os.environ.setdefault(
    "MPLBACKEND", "agg"
)  # where there is a matplotlib, Gradio would look for a screen in the first call

try:
    tempfile.gettempdir()  # what is imported below wants one
except FileNotFoundError:
    sys.exit("error: no folder for temporary files can be written; name one in TMPDIR, with some free space")

from dd import hub
from dd.checkpoints import CheckpointError
from dd.device import device, keep_freed_memory
from dd.models import Models
from dd.ui.app import CSS, JS, THEME, THREADS, build
from dd.ui.upload import unwritable

WHERE_TO_WRITE = "name folders that can be written in GRADIO_TEMP_DIR and, for weights from the hub, in HF_HOME"
MAX_FILE, MAX_BODY = "20mb", 24 * 2**20  # of one upload; of any request, uploads included


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    env = os.environ.get

    def on(name: str) -> bool:
        return env(name, "").lower() in ("1", "true", "yes", "on")

    parser = argparse.ArgumentParser(description="Dirichlet Diffusion in the browser.")
    parser.add_argument("--port", type=int, default=env("DD_PORT"), help="default: the first free one from 7860")
    parser.add_argument("--host", default=env("DD_HOST"), help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--share", action="store_true", default=on("DD_SHARE"), help="a public Gradio link")
    parser.add_argument("--root-path", default=env("DD_ROOT_PATH"), help="path prefix behind a proxy")
    parser.add_argument(
        "--checkpoints", default=env("DD_CHECKPOINTS", Path(__file__).parent / "checkpoints"),
        help="folder of checkpoints, or a hub repository USER/NAME[@REVISION]",
    )  # fmt: skip
    parser.add_argument(
        "--device", type=device, default=env("DD_DEVICE", "cpu"), help="where the networks live (default cpu)"
    )
    parser.add_argument("--queue-size", type=int, default=env("DD_QUEUE_SIZE", 64), help="visitors who may wait")
    parser.add_argument("--max-seconds", type=float, default=env("DD_MAX_SECONDS", 300), help="of computing, a run")
    parser.add_argument("--mcp", action="store_true", default=on("DD_MCP"), help="serve the API as MCP tools too")
    return parser.parse_args(argv)


def main() -> None:
    args = parse()
    keep_freed_memory()
    try:
        root = hub.folder(args.checkpoints)
        demo = build(Models(root, args.device), args.max_seconds)
    except CheckpointError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        where = error.filename2 or error.filename or "a folder"
        sys.exit(f"error: {where} cannot be used ({error.strerror}); {WHERE_TO_WRITE}")
    demo.queue(max_size=args.queue_size, status_update_rate=1, api_open=False)  # closed: nothing passes by the queue
    try:
        demo.launch(
            server_name=args.host, server_port=args.port, share=args.share, root_path=args.root_path, theme=THEME,
            css=CSS, js=JS, max_file_size=MAX_FILE, show_error=False, footer_links=["api"],
            mcp_server=args.mcp or None,  # None: Gradio asks GRADIO_MCP_SERVER
            state_session_capacity=200, max_threads=THREADS,
            app_kwargs={"max_body_size": MAX_BODY, "exception_handlers": {OSError: unwritable}},
        )  # fmt: skip
    except ImportError as error:  # what an MCP server needs is an extra of Gradio's
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {str(error).splitlines()[0]} Choose another with --port, or none to take the first free one.")


if __name__ == "__main__":
    main()
