use std::collections::BTreeMap;

use jobworker_limits::Controller;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::*;
use crate::job::{JobId, fake};
use crate::tasks::Tasks;

/// Accepts one connection and reads its request.
async fn accept(listener: &UnixListener) -> (Request, UnixStream) {
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut line = Vec::new();
    BufReader::new(&mut connection).read_until(b'\n', &mut line).await.unwrap();
    (serde_json::from_slice(&line).unwrap(), connection)
}

fn attached() -> Vec<u8> {
    let unavailable = BTreeMap::from([(Controller::Io, "not delegated".to_owned())]);
    let (version, base) = ("9".to_owned(), Some("/sys/fs/cgroup/x".into()));
    let attached = Attached { version, format: FORMAT_VERSION, base, unavailable };
    let mut line = serde_json::to_vec(&attached).unwrap();
    line.push(b'\n');
    line
}

/// A spawner that takes attachments and hands them out, so that a test can end them.
async fn attach(listener: &UnixListener, socket: &Path) -> (SpawnerClient, Attached, UnixStream) {
    let answer = async {
        let (request, mut connection) = accept(listener).await;
        assert!(matches!(request, Request::Attach), "{request:?}");
        connection.write_all(&attached()).await.unwrap();
        connection
    };
    let (client, connection) = tokio::join!(SpawnerClient::attach(socket), answer);
    let (client, attached) = client.unwrap();
    (client, attached, connection)
}

fn a_socket() -> (tempfile::TempDir, PathBuf, UnixListener) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("spawner.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    (folder, socket, listener)
}

#[tokio::test]
async fn the_attachment_tells_of_the_host_and_stays_open() {
    let (_folder, socket, listener) = a_socket();
    let (client, attached, mut connection) = attach(&listener, &socket).await;
    assert_eq!(attached.base.as_deref(), Some(Path::new("/sys/fs/cgroup/x")));
    assert_eq!(attached.unavailable[&Controller::Io], "not delegated");
    let mut byte = [0];
    assert!(
        matches!(connection.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    );
    drop(client);
    assert_eq!(timeout(PATIENCE, connection.read(&mut byte)).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_start_is_one_line_there_and_one_back() {
    let (_folder, socket, listener) = a_socket();
    let (client, _, _attachment) = attach(&listener, &socket).await;
    let spec = fake::spec(JobId::random(), "alice");
    let answer = async {
        let (request, mut connection) = accept(&listener).await;
        connection.write_all(b"\"started\"\n").await.unwrap();
        request
    };
    let (reply, request) = tokio::join!(client.start(&spec), answer);
    assert!(matches!(reply.unwrap(), (StartReply::Started, None)));
    assert!(matches!(request, Request::Start(asked) if *asked == spec));
}

#[tokio::test]
async fn a_spawner_that_was_replaced_is_attached_to_again() {
    let (_folder, socket, listener) = a_socket();
    let (client, _, attachment) = attach(&listener, &socket).await;
    drop(attachment);
    timeout(PATIENCE, client.shared.gone()).await.unwrap();
    let (seen, mut requests) = mpsc::unbounded_channel();
    let answers = tokio::spawn(async move {
        let mut open = Vec::new();
        for answer in [attached(), b"\"exists\"\n".to_vec()] {
            let (request, mut connection) = accept(&listener).await;
            connection.write_all(&answer).await.unwrap();
            seen.send(request).unwrap();
            open.push(connection);
        }
        open
    });
    let reply = client.start(&fake::spec(JobId::random(), "alice")).await.unwrap();
    assert!(matches!(reply, (StartReply::Exists, None)));
    assert!(matches!(requests.recv().await, Some(Request::Attach)));
    assert!(matches!(requests.recv().await, Some(Request::Start(_))));
    assert_eq!(answers.await.unwrap().len(), 2);
}

#[tokio::test]
async fn nobody_there_no_answer_and_nonsense_are_errors_that_name_the_socket() {
    let (folder, socket, listener) = a_socket();
    let missing = folder.path().join("missing.sock");
    let error = SpawnerClient::attach(&missing).await.err().unwrap();
    assert!(
        matches!(error, SpawnerError::Connect { .. }) && error.to_string().contains("missing.sock"),
        "{error}"
    );

    for nonsense in [&b""[..], b"{}", b"{}\n", b"\xff\n"] {
        let answer = async {
            let (_, mut connection) = accept(&listener).await;
            connection.write_all(nonsense).await.unwrap();
        };
        let (attached, ()) = tokio::join!(SpawnerClient::attach(&socket), answer);
        let error = attached.err().unwrap();
        assert!(
            matches!(error, SpawnerError::NoAnswer { .. }) && error.to_string().contains("spawner.sock"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_line_without_end_is_not_taken() {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let endless = tokio::spawn(async move { while far.write_all(&[b'x'; 1 << 16]).await.is_ok() {} });
    let error = exchange::<Attached>(&mut near, &Request::Attach).await.unwrap_err();
    assert!(error.to_string().contains("more than 16777216 bytes"), "{error}");
    drop(near);
    endless.await.unwrap();
}

/// Takes an attachment.
async fn take(listener: &UnixListener) -> UnixStream {
    let (request, mut connection) = timeout(PATIENCE, accept(listener)).await.unwrap();
    assert!(matches!(request, Request::Attach), "{request:?}");
    connection.write_all(&attached()).await.unwrap();
    connection
}

/// Waits until something is so.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    timeout(PATIENCE, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_spawner_that_goes_is_attached_to_again_though_nobody_starts_a_job() {
    let (_folder, socket, listener) = a_socket();
    let (client, _, attachment) = attach(&listener, &socket).await;
    let shutdown = CancellationToken::new();
    let client = client.stay_attached(&shutdown, &Tasks::default());
    drop(attachment);
    let attachment = take(&listener).await;
    drop(attachment);
    // The first attempt fails.
    drop(timeout(PATIENCE, accept(&listener)).await.unwrap());
    let mut connection = take(&listener).await;
    let shared = &client.shared;
    until(async || shared.attachment.lock().await.as_ref().is_some_and(|now| !now.gone.is_cancelled())).await;
    // The worker goes down: the task that stays attached ends.
    shutdown.cancel();
    until(async || Arc::strong_count(shared) == 1).await;
    drop(client);
    let mut byte = [0];
    assert_eq!(timeout(PATIENCE, connection.read(&mut byte)).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_is_dropped_keeps_nobody() {
    let (_folder, socket, listener) = a_socket();
    let (client, _, _attachment) = attach(&listener, &socket).await;
    let client = client.stay_attached(&CancellationToken::new(), &Tasks::default());
    let shared = Arc::downgrade(&client.shared);
    drop(client);
    until(async || shared.strong_count() == 0).await;
}

#[tokio::test]
async fn a_spawner_that_ends_with_the_request_in_its_queue_is_not_noticed() {
    let (_folder, socket, listener) = a_socket();
    let (client, _, _attachment) = attach(&listener, &socket).await;
    let answers = async {
        let (request, connection) = accept(&listener).await;
        assert!(matches!(request, Request::Start(_)), "{request:?}");
        drop(connection);
        let attachment = take(&listener).await;
        let (request, mut connection) = accept(&listener).await;
        assert!(matches!(request, Request::Start(_)), "{request:?}");
        connection.write_all(b"\"exists\"\n").await.unwrap();
        attachment
    };
    let spec = fake::spec(JobId::random(), "alice");
    let (reply, _attachment) = tokio::join!(client.start(&spec), answers);
    assert!(matches!(reply.unwrap(), (StartReply::Exists, None)));
}
