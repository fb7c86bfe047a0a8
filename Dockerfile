# One image for all commands and roles: docker run snapferry sync …, docker run snapferry worker, … Health checks differ by role,
# so they are in docker-compose.yml. The file system may be read-only: commands and roles write to TMPDIR and /stores, and Flower
# and `snapferry run` to /var/lib/snapferry.

# An exact version. To pin the bytes as well, build with the digest of your choice:
# --build-arg PYTHON_IMAGE=python:3.12.12-slim-bookworm@sha256:… (docs/deploy.md, "Pin images").
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

# The wheel, with its compiled extensions. The image has no compiler.
FROM ${PYTHON_IMAGE} AS wheel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY .ci/constraints-build.txt .ci/
RUN pip install --require-hashes --only-binary :all: -r .ci/constraints-build.txt
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY snapferry snapferry
COPY stores stores
COPY workers workers
COPY orchestrator orchestrator
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /dist .

# The environment. Every package is checked against its hash.
FROM ${PYTHON_IMAGE} AS environment
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/snapferry
COPY .ci/constraints-runtime.txt /tmp/
RUN /opt/snapferry/bin/pip install --require-hashes --only-binary :all: -r /tmp/constraints-runtime.txt
COPY --from=wheel /dist /dist
RUN /opt/snapferry/bin/pip install --no-deps /dist/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="snapferry" org.opencontainers.image.licenses="MIT"
# /stores is for file:// stores, /var/lib/snapferry for Flower's history and the state of `snapferry run`. A new volume inherits
# owner and mode.
RUN groupadd --gid 10001 snapferry \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin snapferry \
    && install -d -o snapferry -g snapferry /stores \
    && install -d -m 0700 -o snapferry -g snapferry /var/lib/snapferry
COPY --from=environment /opt/snapferry /opt/snapferry
ENV PATH=/opt/snapferry/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SNAPFERRY_STATE_DIR=/var/lib/snapferry/runs
USER 10001:10001
WORKDIR /home/snapferry
# Arguments of `docker run snapferry` are those of the command. It is no shell's child, so it gets SIGTERM itself.
ENTRYPOINT ["snapferry"]
CMD ["--help"]
