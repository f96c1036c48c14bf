# nextfail on a CPU: docker build -t nextfail --build-arg TORCH_INDEX=URL .
# docker run --rm -v "$PWD/runs:/work/runs" nextfail nextfail-train objective=reverse
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=
COPY . /src
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch && pip install --no-cache-dir /src
WORKDIR /work
CMD ["nextfail-train", "--help"]
