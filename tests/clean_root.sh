#!/usr/bin/env bash
# Run the steps of the Dockerfile, read from the Dockerfile itself, where there is no container engine: a fresh virtual
# environment stands for the base image, a folder for the root. As root (and where the kernel allows it) the app runs
# with everything but /cache read-only. Ends well when the health check passes and the app has answered a request.
#
#   tests/clean_root.sh [PYTHON]      PYTHON of the base image's version (default python3)
#   DD_CLEAN_SITE=FOLDER              use the packages in FOLDER and skip `pip install` (seconds instead of minutes)
#   TORCH_INDEX=URL                   the build argument
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
root=$(mktemp -d)
app=
cleanup() { [ -z "$app" ] || kill "$app" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$root"; }
trap cleanup EXIT

"${1:-python3}" -m venv "$root/venv"
export PATH="$root/venv/bin:$PATH" TORCH_INDEX=${TORCH_INDEX:-} HOME="$root/home/user"
if [ -n "${DD_CLEAN_SITE:-}" ]; then
  echo "$DD_CLEAN_SITE" > "$(python -c 'import site; print(site.getsitepackages()[0])')/clean.pth"
fi
mkdir -p "$root/cache" "$HOME"
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

here() { sed -E "s#(^|[ =\"])/(cache|app)#\1$root/\2#g" <<<"$1"; }
files() { git -C "$repository" ls-files -z --cached --others --exclude-standard --deduplicate; }
words() { python -c 'import json, shlex, sys; print(shlex.join(json.loads(sys.argv[1])))' "$1"; }

health= start=
while IFS= read -r line; do
  step=${line%% *} rest=$(here "${line#* }")
  case $step in
    FROM | ARG | USER | VOLUME | EXPOSE) continue ;;
    ENV) for pair in $rest; do export "${pair?}"; done; DD_PORT=$port DD_HOST=127.0.0.1 ;;
    WORKDIR) mkdir -p "$rest"; cd "$rest" ;;
    COPY)
      case $rest in
        ". ./")
          files | tar --anchored --exclude-from="$repository/.dockerignore" --directory="$repository" \
            --null --files-from=- -cf - | tar -xf -
          ;;
        *" ./") cp "$repository/${rest% ./}" . ;;
        *) echo "clean_root.sh does not know: $line" >&2; exit 1 ;;
      esac
      ;;
    RUN)
      case $rest in
        useradd*) echo "skipped (needs a container): $rest" ;;
        "pip install"*) [ -n "${DD_CLEAN_SITE:-}" ] && echo "skipped (DD_CLEAN_SITE): $rest" || sh -c "$rest" ;;
        *) sh -c "$rest" ;;
      esac
      ;;
    HEALTHCHECK) health=$(words "${rest#*CMD }") ;;
    CMD) start=$(words "$rest") ;;
    *) echo "clean_root.sh does not know: $line" >&2; exit 1 ;;
  esac
done < <(sed -e '/^#/d' -e '/^ *$/d' "$repository/Dockerfile" | sed -e ':a' -e '/\\$/{N;s/\\\n *//;ba' -e '}')

export DD_PORT DD_HOST
locked="mount --bind $root $root && mount --bind $root/cache $root/cache && mount -o remount,ro,bind $root"
if [ "$(id -u)" = 0 ] && unshare --mount sh -c "$locked && touch $root/cache/x && ! touch $root/x" 2>/dev/null; then
  echo "read-only but for the cache"
  unshare --mount sh -c "cd /; $locked && cd $PWD && exec $start" &
else
  echo "writable: this machine gives no mount name space"
  sh -c "exec $start" &
fi
app=$!

for _ in $(seq "${DD_CLEAN_PATIENCE:-120}"); do
  kill -0 "$app" 2>/dev/null || { echo "the app has ended" >&2; exit 1; }
  if sh -c "$health" 2>/dev/null; then
    python - <<'PYTHON'
import os
from gradio_client import Client

client = Client("http://127.0.0.1:" + os.environ["DD_PORT"], verbose=False)
picture, recipe = client.predict(steps=2, images=1, api_name="/generate")
assert open(picture, "rb").read(4) == b"\x89PNG" and recipe["steps"] == 2
print("answered:", recipe["checkpoint"])
PYTHON
    echo "clean root: well"
    exit 0
  fi
  sleep 1
done
echo "the app did not answer in time" >&2
exit 1
