# docker build -t dirichlet-diffusion . && docker run --rm -p 7860:7860 --read-only -v dd-cache:/cache dirichlet-diffusion
# tests/clean_root.sh runs these very steps where there is no container engine.
FROM python:3.11-slim-bookworm

# Index of CPU-only wheels, PyTorch publishes one; empty: the package index's own torch.
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

RUN useradd --uid 1000 --create-home user && mkdir /cache && chown user /cache
WORKDIR /app

COPY requirements.txt ./
RUN if [ -n "$TORCH_INDEX" ]; then pip install --index-url "$TORCH_INDEX" torch torchvision; fi
RUN pip install -r requirements.txt

COPY . ./

USER 1000
ENV DD_HOST=0.0.0.0 DD_PORT=7860 HF_HOME=/cache/huggingface GRADIO_TEMP_DIR=/cache/gradio TMPDIR=/cache \
    MPLCONFIGDIR=/cache/matplotlib TORCH_HOME=/cache/torch
VOLUME /cache
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['DD_PORT'])"]
CMD ["python", "app.py"]
