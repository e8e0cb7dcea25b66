# Tandem in an image: docker build -t tandem .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package tandem

FROM debian:bookworm-slim
RUN useradd --system --home-dir /var/lib/tandem --create-home tandem
COPY --from=build /src/target/release/tandem /usr/local/bin/tandem
USER tandem
WORKDIR /var/lib/tandem
EXPOSE 9464
ENTRYPOINT ["tandem"]
CMD ["run", "--config", "/etc/tandem/tandem.toml"]
