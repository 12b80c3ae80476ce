use std::future::poll_fn;

use http_body::Body as _;
use tonic::Code;

use super::*;

fn message(byte: u8, length: usize) -> Bytes {
    vec![byte; length].into()
}

/// Messages that are there at once, then a pause, then the next ones.
fn bursts(
    bursts: Vec<Vec<Result<Bytes, Status>>>,
) -> impl Stream<Item = Result<Bytes, Status>> + Send + Unpin {
    let mut left: Vec<_> =
        bursts.into_iter().flat_map(|burst| burst.into_iter().map(Some).chain([None])).collect();
    left.reverse();
    stream::poll_fn(move |cx| match left.pop() {
        Some(None) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        Some(message) => Poll::Ready(message),
        None => Poll::Ready(None),
    })
}

type AnyBody<'a> = &'a mut (dyn http_body::Body<Data = Bytes, Error = Status> + Unpin);

async fn frame(body: AnyBody<'_>) -> Option<Frame<Bytes>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.transpose().unwrap()
}

/// The bytes of each data frame, and the trailers behind them.
async fn read(body: AnyBody<'_>) -> (Vec<Bytes>, HeaderMap) {
    let mut frames = Vec::new();
    loop {
        assert!(!body.is_end_stream(), "the trailers are still to come");
        match frame(body).await.expect("trailers come last").into_data() {
            Ok(data) => frames.push(data),
            Err(trailers) => {
                assert!(
                    body.is_end_stream() && frame(body).await.is_none(),
                    "nothing is behind the trailers"
                );
                return (frames, trailers.into_trailers().unwrap());
            }
        }
    }
}

#[tokio::test]
async fn small_messages_that_are_there_go_out_together_and_large_ones_as_they_are() {
    let large = message(b'L', LARGE_BYTES);
    let at = large.as_ptr();
    let small = |byte| Ok(message(byte, 10));
    let messages = bursts(vec![vec![small(b'a'), small(b'b'), Ok(large), small(b'c')], vec![small(b'd')]]);
    let (frames, trailers) = read(&mut Delivery::new(messages)).await;
    let expected =
        [b"aaaaaaaaaabbbbbbbbbb".to_vec(), vec![b'L'; LARGE_BYTES], vec![b'c'; 10], vec![b'd'; 10]];
    assert!(frames == expected, "{:?}", frames.iter().map(Bytes::len).collect::<Vec<_>>());
    assert_eq!(frames[1].as_ptr(), at, "it was copied");
    assert_eq!((trailers.len(), trailers["grpc-status"].as_bytes()), (1, &b"0"[..]));
}

#[tokio::test]
async fn no_more_is_gathered_than_pays() {
    let messages = (0..1000).map(|_| Ok(message(b'x', 1000))).collect();
    let (frames, _) = read(&mut Delivery::new(bursts(vec![messages]))).await;
    assert_eq!(frames.iter().map(Bytes::len).sum::<usize>(), 1_000_000);
    assert!(frames.iter().all(|frame| frame.len() < GATHERED_BYTES + 1000));
    assert!(frames.len() < 20, "{} frames", frames.len());
}

#[tokio::test]
async fn an_error_comes_behind_what_was_there_with_all_that_it_says() {
    let error = || Status::with_details(Code::Unavailable, "going down: 100 %", Bytes::from_static(b"why"));
    let messages = bursts(vec![vec![Ok(message(b'x', 10)), Err(error()), Ok(message(b'y', 10))]]);
    let (frames, trailers) = read(&mut Delivery::new(messages)).await;
    assert_eq!(frames, [&[b'x'; 10][..]]);
    let expected: http::Response<Body> = error().into_http();
    for key in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        assert_eq!(trailers[key], expected.headers()[key], "{key}");
    }
}

#[tokio::test]
async fn the_body_gets_past_tonic_and_only_that_of_a_stream() {
    let answer = response(stream::iter([Ok(message(b'x', 10))]));
    let extensions = answer.extensions().clone();
    let mut answered = http::Response::new(Body::empty());
    *answered.extensions_mut() = extensions;
    let (frames, trailers) = read(unpack(answered).body_mut()).await;
    assert_eq!((frames, &trailers["grpc-status"]), (vec![message(b'x', 10)], &"0".parse().unwrap()));
    let others = Body::new(Delivery::new(stream::iter([Ok(message(b'o', 1))])));
    let (frames, _) = read(unpack(http::Response::new(others)).body_mut()).await;
    assert_eq!(frames, [message(b'o', 1)]);
}

#[tokio::test]
async fn a_body_that_is_lost_is_an_error_and_not_an_empty_stream() {
    let mut answer = response(stream::empty()).into_inner();
    assert_eq!(answer.next().await.unwrap().unwrap_err().code(), Code::Internal);
}
