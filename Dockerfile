# Tandem in an image: docker build -t tandem .
FROM rust:1.95-bookworm AS build
WORKDIR /src
RUN apt-get update && apt-get install -y --no-install-recommends libssl-dev pkg-config
COPY . .
RUN cargo build --release --locked --package tandem

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends libssl3 ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --system --home-dir /var/lib/tandem --create-home tandem
COPY --from=build /src/target/release/tandem /usr/local/bin/tandem
USER tandem
WORKDIR /var/lib/tandem
EXPOSE 9464
ENTRYPOINT ["tandem"]
CMD ["run", "--config", "/etc/tandem/tandem.toml"]
