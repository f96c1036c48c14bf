# nextfail on a CPU: docker build -t nextfail . (with --build-arg PIP_EXTRA_INDEX_URL=URL for an index that has torch's CPU build)
# docker run --rm -v "$PWD/runs:/nextfail/runs" nextfail nextfail-train objective=reverse
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ARG PIP_EXTRA_INDEX_URL
COPY . /src
RUN pip install --no-cache-dir -c /src/constraints.txt /src
WORKDIR /nextfail
CMD ["nextfail-train", "--help"]
