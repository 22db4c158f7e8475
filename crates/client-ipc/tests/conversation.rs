//! Conversations over a real Unix socket: calls, events, and daemons that misbehave.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::PathBuf;
use std::time::Duration;

use adit_client_ipc::{
    CallError, ErrorCode, Event, FrameError, FromDaemon, FromFrontEnd, FrontEnd, Hello, MAX_FRAME, Outcome,
    Reply, Request, RequestError, ResourceState, ResourceStatus, Response, read_frame, write_frame,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(5);

fn listener() -> (tempfile::TempDir, PathBuf, UnixListener) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    (directory, path, listener)
}

async fn accept(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let hello: Hello = read_frame(&mut stream).await.unwrap();
    assert!(hello.is_compatible());
    write_frame(&mut stream, &Hello::new()).await.unwrap();
    stream
}

fn resource() -> ResourceStatus {
    ResourceStatus {
        id: Uuid::from_u128(7),
        name: "wiki".to_owned(),
        address: "wiki.corp".to_owned(),
        site: "hq".to_owned(),
        state: ResourceState::NoActivity,
        gateway: None,
    }
}

#[tokio::test]
async fn a_reply_finds_its_call_past_events_and_strangers() {
    let (_directory, path, listener) = listener();
    let daemon = tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        let call: FromFrontEnd = read_frame(&mut stream).await.unwrap();
        assert_eq!(call.request, Request::Resources {});
        let event = FromDaemon::Event(Event::Resources(vec![resource()]));
        write_frame(&mut stream, &event).await.unwrap();
        for id in [call.id + 40, call.id] {
            let outcome = Outcome::Result(Response::Resources(vec![resource()]));
            write_frame(&mut stream, &FromDaemon::Reply(Reply { id, outcome })).await.unwrap();
        }
    });
    let mut front_end = FrontEnd::connect(&path).await.unwrap();
    let response = front_end.call(Request::Resources {}, LIMIT).await.unwrap();
    assert_eq!(response, Response::Resources(vec![resource()]));
    assert_eq!(front_end.next_event().await.unwrap(), Event::Resources(vec![resource()]));
    daemon.await.unwrap();
}

#[tokio::test]
async fn a_refusal_keeps_its_code() {
    let (_directory, path, listener) = listener();
    tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        let call: FromFrontEnd = read_frame(&mut stream).await.unwrap();
        let error = RequestError { code: ErrorCode::Denied, message: "no".to_owned() };
        let reply = Reply { id: call.id, outcome: Outcome::Error(error) };
        write_frame(&mut stream, &FromDaemon::Reply(reply)).await.unwrap();
    });
    let mut front_end = FrontEnd::connect(&path).await.unwrap();
    match front_end.call(Request::Down {}, LIMIT).await {
        Err(CallError::Refused(error)) => assert_eq!(error.code, ErrorCode::Denied),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_daemon_from_the_future_is_refused_by_name() {
    let (_directory, path, listener) = listener();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let hello = Hello { oldest: 90, newest: 99, version: "9.9.9".to_owned() };
        write_frame(&mut stream, &hello).await.unwrap();
        let _: Hello = read_frame(&mut stream).await.unwrap();
    });
    match FrontEnd::connect(&path).await {
        Err(CallError::Incompatible { version }) => assert_eq!(version, "9.9.9"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_frame_too_large_is_refused_before_it_is_read() {
    let (mut near, mut far) = tokio::io::duplex(64);
    let length = u32::try_from(MAX_FRAME + 1).unwrap();
    far.write_all(&length.to_be_bytes()).await.unwrap();
    match read_frame::<Hello>(&mut near).await {
        Err(FrameError::TooLarge(size)) => assert_eq!(size, MAX_FRAME + 1),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn garbage_and_truncation_are_told_apart() {
    let (mut near, mut far) = tokio::io::duplex(64);
    far.write_all(&[0, 0, 0, 3, b'{', b'{', b'{']).await.unwrap();
    assert!(matches!(read_frame::<Hello>(&mut near).await, Err(FrameError::Malformed(_))));
    far.write_all(&[0, 0, 0, 9, b'{']).await.unwrap();
    drop(far);
    assert!(matches!(read_frame::<Hello>(&mut near).await, Err(FrameError::Io(_))));
    assert!(matches!(read_frame::<Hello>(&mut near).await, Err(FrameError::Closed)));
}

#[test]
fn a_token_is_never_printed() {
    let request: FromFrontEnd =
        serde_json::from_str(r#"{"id":1,"method":"up","params":{"token":"adit_client_secret"}}"#).unwrap();
    assert!(!format!("{request:?}").contains("secret"));
}
