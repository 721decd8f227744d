//! Laws of framing under arbitrary input: what goes in comes out, however the bytes are cut, and
//! a bad line costs only itself.

use astscope_protocol::{
    Chunk, ChunkAssembler, Incoming, LineDecoder, LineTooLong, encode_notification, encode_request,
    parse,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Feeds `stream` to a decoder in pieces of the given sizes (over and over), and checks its memory.
fn decode(stream: &[u8], sizes: &[usize], cap: usize) -> Vec<Result<Vec<u8>, LineTooLong>> {
    let mut decoder = LineDecoder::with_cap(cap);
    let mut lines = Vec::new();
    let mut rest = stream;
    for &size in sizes.iter().cycle() {
        let (mut piece, left) = rest.split_at(size.min(rest.len()));
        rest = left;
        while let Some(line) = decoder.next_line(&mut piece) {
            lines.push(line.map(<[u8]>::to_vec));
        }
        assert!(piece.is_empty(), "the decoder left bytes behind");
        assert!(decoder.buffered() <= cap, "the decoder holds more than its cap");
        if rest.is_empty() {
            break;
        }
    }
    lines
}

/// Sizes of the pieces that a stream arrives in.
fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1_usize..40, 1..10)
}

/// JSON values, with text that needs escaping.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn messages_survive_any_cutting_of_the_stream(
        messages in prop::collection::vec((any::<Option<u64>>(), any::<String>(), json()), 1..6),
        sizes in sizes(),
    ) {
        let mut stream = Vec::new();
        for (id, method, value) in &messages {
            let params = BTreeMap::from([("value", value)]);
            match *id {
                Some(id) => encode_request(&mut stream, id, method, &params).unwrap(),
                None => encode_notification(&mut stream, method, &params).unwrap(),
            }
        }
        let lines = decode(&stream, &sizes, usize::MAX);
        let seen: Vec<_> = lines
            .into_iter()
            .map(|line| match parse(&line.unwrap()).unwrap() {
                Incoming::Request(it) => (Some(it.id), it.method, it.params),
                Incoming::Notification(it) => (None, it.method, it.params),
                Incoming::Response(it) => panic!("a response: {it:?}"),
            })
            .map(|(id, method, params)| {
                let mut params: BTreeMap<String, serde_json::Value> =
                    serde_json::from_str(params.get()).unwrap();
                (id, method, params.remove("value").unwrap())
            })
            .collect();
        prop_assert_eq!(seen, messages);
    }

    #[test]
    fn each_oversized_line_is_one_error_and_no_other_line_is_lost(
        lines in prop::collection::vec(prop::collection::vec(b'a'..=b'z', 1..40), 1..12),
        sizes in sizes(),
        cap in 1_usize..40,
    ) {
        let mut stream = lines.join(&b'\n');
        stream.push(b'\n');
        let expected: Vec<_> = lines
            .into_iter()
            .map(|line| if line.len() > cap { Err(LineTooLong { max: cap }) } else { Ok(line) })
            .collect();
        prop_assert_eq!(decode(&stream, &sizes, cap), expected);
    }

    #[test]
    fn the_cutting_of_the_stream_never_shows(
        stream in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 1..300),
        sizes in sizes(),
        cap in 1_usize..40,
    ) {
        prop_assert_eq!(decode(&stream, &sizes, cap), decode(&stream, &[usize::MAX], cap));
    }

    #[test]
    fn parsing_is_total_and_a_rejection_is_an_answer(
        line in prop_oneof![
            any::<Vec<u8>>(),
            json().prop_map(|value| serde_json::to_vec(&value).unwrap()),
            json().prop_map(|value| {
                format!(r#"{{"jsonrpc":"2.0","id":5,"method":{value},"params":{value}}}"#).into_bytes()
            }),
        ],
    ) {
        if let Err(rejected) = parse(&line) {
            prop_assert!([-32700, -32600, -32602].contains(&rejected.error.code));
            prop_assert!(rejected.error.data.is_some_and(|data| !data.retryable));
        }
    }

    #[test]
    fn interleaved_pieces_of_lines_come_together(
        lines in prop::collection::vec(prop::collection::vec(any::<String>(), 1..5), 1..5),
        order in prop::collection::vec(any::<prop::sample::Index>(), 30),
    ) {
        let mut waiting: Vec<(u64, Vec<String>)> = (0..).zip(lines.clone()).collect();
        let mut assembler = ChunkAssembler::new();
        let mut whole = BTreeMap::new();
        for index in order.iter().cycle() {
            if waiting.is_empty() {
                break;
            }
            let at = index.index(waiting.len());
            let (stream, pieces) = &mut waiting[at];
            let (stream, text, last) = (*stream, pieces.remove(0), pieces.is_empty());
            if last {
                waiting.remove(at);
            }
            if let Some(line) = assembler.push(Chunk { stream, last, text: text.into() }).unwrap() {
                whole.insert(stream, line);
            }
        }
        let expected: BTreeMap<_, _> = (0..).zip(lines.iter().map(|it| it.concat())).collect();
        prop_assert_eq!(whole, expected);
    }
}
