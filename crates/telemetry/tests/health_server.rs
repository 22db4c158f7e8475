//! The health server over real connections, friendly and not.

use std::time::Duration;

use adit_telemetry::{HealthServer, MetricsHandle, Readiness};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

struct Server {
    address: std::net::SocketAddr,
    readiness: Readiness,
}

async fn server(metrics: Option<MetricsHandle>) -> Server {
    let readiness = Readiness::new();
    let address = "127.0.0.1:0".parse().expect("address");
    let server = HealthServer::bind(address, readiness.clone(), metrics).await.expect("binds");
    let address = server.local_addr().expect("address");
    tokio::spawn(server.run());
    Server { address, readiness }
}

impl Server {
    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        answer
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }
}

#[tokio::test]
async fn health_readiness_and_metrics_are_told() {
    let metrics = adit_telemetry::metrics::install().expect("installs");
    let server = server(Some(metrics)).await;
    assert!(server.get("/healthz").await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(server.get("/readyz").await.starts_with("HTTP/1.1 503 "));
    server.readiness.set(true);
    assert!(server.get("/readyz?verbose").await.starts_with("HTTP/1.1 200 "));
    server.readiness.set(false);
    assert!(server.get("/readyz").await.starts_with("HTTP/1.1 503 "));
    metrics::counter!("adit_probe_total", "kind" => "test").increment(3);
    metrics::histogram!("adit_probe_seconds").record(0.02);
    let text = server.get("/metrics").await;
    assert!(text.contains("adit_probe_total{kind=\"test\"} 3"), "{text}");
    assert!(text.contains("adit_probe_seconds_bucket{le=\"0.025\"} 1"), "{text}");
}

#[tokio::test]
async fn a_head_request_gets_no_body() {
    let server = server(None).await;
    let answer = server.ask("HEAD /healthz HTTP/1.1\r\n\r\n").await;
    assert!(answer.contains("Content-Length: 6\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn nonsense_is_refused() {
    let server = server(None).await;
    for (request, status) in [
        ("POST /healthz HTTP/1.1\r\n\r\n", "405"),
        ("GET /secret HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics HTTP/1.1\r\n\r\n", "404"),
        ("GET /healthz SPDY/3\r\n\r\n", "505"),
        ("hello\r\n\r\n", "400"),
        ("\u{16}\u{3}\u{1}\r\n\r\n", "400"),
    ] {
        let answer = server.ask(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
}

#[tokio::test]
async fn an_endless_request_is_cut_off() {
    let server = server(None).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    // The server may hang up while we still write.
    let _ = stream.write_all(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(64 * 1024)).as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "));
    assert!(server.get("/healthz").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(start_paused = true)]
async fn silent_connections_do_not_keep_others_out() {
    let server = server(None).await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(server.address).await.expect("connects"));
    }
    let answer =
        tokio::time::timeout(Duration::from_secs(60), server.get("/healthz")).await.expect("in time");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
