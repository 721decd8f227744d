//! A whole conversation, line by line: the protocol as somebody sees it who has no library.

use crate::support::{Daemon, text};
use astscope_fixtures::Fixture;
use expect_test::expect;

/// Replaces the number behind each `"key":` by `0`.
fn mask_number(line: &str, key: &str) -> String {
    let key = format!("\"{key}\":");
    let mut masked = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(&key) {
        let (before, behind) = rest.split_at(at + key.len());
        masked.push_str(before);
        rest = behind.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() < behind.len() {
            masked.push('0');
        }
    }
    masked + rest
}

#[test]
#[expect(clippy::too_many_lines, reason = "most of them are the conversation")]
fn a_conversation_is_these_lines() {
    // How far the scrub is by the end depends on the machine.
    let settings = Fixture::parse("//- /config.toml\nscrub = false\n");
    let daemon = Daemon::start_with(|config| {
        config.settings.file = Some(settings.path("config.toml"));
    });
    let tree = Fixture::parse(
        "//- /src/a.rs\nfn main() {\n    f(1);\n}\n//- /src/b.rs\nfn b() { f(é); f(2) }\n//- /src/c.rs\nfn c() {}\n",
    );
    let root = text(&tree.root());
    let socket = text(&daemon.socket());
    let hide = |line: &str| {
        let numbers = [
            "pid",
            "elapsedUs",
            "epoch",
            "number",
            "refresh",
            "plan",
            "match",
            "indexedInMs",
            "pauseMs",
            "proven",
            "looked",
            "treeBytes",
            "caches",
            "bytes",
            "trees",
            "indexes",
            "residentAnon",
            "residentFile",
            "uptimeSeconds",
        ];
        let line = line.replace(&root, "/tree").replace(&socket, "/run/daemon.sock");
        numbers.iter().fold(line, |line, key| mask_number(&line, key))
    };
    let mut connection = daemon.silent();
    let mut transcript = Vec::new();
    // A cancellation has no answer; the next request shows that it did no harm.
    for (line, is_answered) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"hello","params":{"protocol":{"min":1,"max":7},"client":{"name":"nc","version":"1"}}}"#,
            true,
        ),
        (r#"{"jsonrpc":"2.0","id":2,"method":"open","params":{"path":"/tree"}}"#, true),
        (
            r#"{"jsonrpc":"2.0","id":3,"method":"run","params":{"selection":{"cwd":"/tree","paths":["src"]},"matcher":{"pattern":"f($A)"},"language":"rust","rewrite":"g($A)"}}"#,
            true,
        ),
        (
            r#"{"jsonrpc":"2.0","id":4,"method":"explain","params":{"selection":{"cwd":"/tree"},"matcher":{"pattern":"f($A)"},"language":"rs"}}"#,
            true,
        ),
        (
            r#"{"jsonrpc":"2.0","id":5,"method":"parse","params":{"cwd":"/tree/src","path":"c.rs","cst":true}}"#,
            true,
        ),
        (
            r#"{"jsonrpc":"2.0","id":6,"method":"parse","params":{"text":"{\"a\": }","language":"json"}}"#,
            true,
        ),
        (
            r#"{"jsonrpc":"2.0","id":7,"method":"run","params":{"selection":{"cwd":"/tree"},"matcher":{"pattern":"f(); g()"},"language":"rust"}}"#,
            true,
        ),
        (r#"{"jsonrpc":"2.0","method":"$/cancel","params":{"id":99}}"#, false),
        (r#"{"jsonrpc":"2.0","id":8,"method":"rum"}"#, true),
        (r#"{"jsonrpc":"2.0","id":9,"method":"status","params":{}}"#, true),
        (
            r#"{"jsonrpc":"2.0","id":10,"method":"points","params":{"cwd":"/tree/src","path":"a.rs","level":"minimal"}}"#,
            true,
        ),
        (r#"{"jsonrpc":"2.0","id":11,"method":"stop","params":{"drain":true}}"#, true),
    ] {
        transcript.push(format!("--> {line}"));
        connection.send(line.replace("/tree", &root) + "\n");
        let mut is_complete = !is_answered;
        while !is_complete {
            let answer = connection.line().expect("an answer");
            is_complete = !answer.contains(r#""method":"#);
            // Whether there is progress depends on who indexes faster.
            if !answer.contains(r#""method":"$/progress""#) {
                transcript.push(format!("<-- {}", hide(&answer).replace('\t', "␉")));
            }
        }
    }
    connection.expect_end();
    expect![[r#"
        --> {"jsonrpc":"2.0","id":1,"method":"hello","params":{"protocol":{"min":1,"max":7},"client":{"name":"nc","version":"1"}}}
        <-- {"jsonrpc":"2.0","id":1,"result":{"protocol":1,"server":{"name":"astscope","version":"1.2.3"},"pid":0,"lineBytesMax":16777216,"requestsInFlightMax":32}}
        --> {"jsonrpc":"2.0","id":2,"method":"open","params":{"path":"/tree"}}
        <-- {"jsonrpc":"2.0","id":2,"requestId":"1-1","result":{"root":"/tree","revision":{"epoch":0,"number":0},"indexing":false,"filesSeen":3,"filesParsed":3,"skipped":{},"filesKept":0,"languages":{"Rust":3},"sourceBytes":57,"nodes":52,"treeBytes":0,"indexedInMs":0,"remembered":{"queries":0,"results":0,"bytes":0,"hits":0,"misses":0},"breakers":[{"name":"files","state":"closed","failures":0},{"name":"parsing","state":"closed","failures":0}],"watcher":{"state":"native","pauseMs":0,"settleMs":50,"directories":2,"waiting":0,"proven":0,"looked":0},"scrub":{"enabled":false,"checked":0,"files":0,"cycles":0,"drift":{"content":0,"tree":0,"missing":0,"ghost":0}},"outcome":"ast_layer_started"}}
        --> {"jsonrpc":"2.0","id":3,"method":"run","params":{"selection":{"cwd":"/tree","paths":["src"]},"matcher":{"pattern":"f($A)"},"language":"rust","rewrite":"g($A)"}}
        <-- {"jsonrpc":"2.0","method":"$/item","params":{"id":3,"file":"src/a.rs","contentId":"a792c13aea8dedaf207965bc38d3dac80adc505b926df91f8d148d7177dc2cfd","matches":[␉{"text":"f(1)","range":{"byteOffset":{"start":16,"end":20},"start":{"line":1,"column":4},"end":{"line":1,"column":8}},"file":"src/a.rs","lines":"    f(1);","charCount":{"leading":4,"trailing":1},"replacement":"g(1)","replacementOffsets":{"start":16,"end":20},"language":"Rust","metaVariables":{"single":{"A":{"text":"1","range":{"byteOffset":{"start":18,"end":19},"start":{"line":1,"column":6},"end":{"line":1,"column":7}}}},"multi":{},"transformed":{}}}␉]}}
        <-- {"jsonrpc":"2.0","method":"$/item","params":{"id":3,"file":"src/b.rs","contentId":"9669f1cd9b7dfd37553e6a53929b7703758c019a952dc3ffa241c00ccff48cf9","matches":[␉{"text":"f(é)","range":{"byteOffset":{"start":9,"end":14},"start":{"line":0,"column":9},"end":{"line":0,"column":13}},"file":"src/b.rs","lines":"fn b() { f(é); f(2) }","charCount":{"leading":9,"trailing":8},"replacement":"g(é)","replacementOffsets":{"start":9,"end":14},"language":"Rust","metaVariables":{"single":{"A":{"text":"é","range":{"byteOffset":{"start":11,"end":13},"start":{"line":0,"column":11},"end":{"line":0,"column":12}}}},"multi":{},"transformed":{}}},␉{"text":"f(2)","range":{"byteOffset":{"start":16,"end":20},"start":{"line":0,"column":15},"end":{"line":0,"column":19}},"file":"src/b.rs","lines":"fn b() { f(é); f(2) }","charCount":{"leading":15,"trailing":2},"replacement":"g(2)","replacementOffsets":{"start":16,"end":20},"language":"Rust","metaVariables":{"single":{"A":{"text":"2","range":{"byteOffset":{"start":18,"end":19},"start":{"line":0,"column":17},"end":{"line":0,"column":18}}}},"multi":{},"transformed":{}}}␉]}}
        <-- {"jsonrpc":"2.0","id":3,"requestId":"1-2","result":{"revision":{"epoch":0,"number":0},"matches":3,"filesMatched":2,"filesVerified":2,"filesRemembered":0,"filesSelected":3,"filesPending":0,"skipped":[],"limitReached":false,"patternHasError":false,"errorMatches":0,"hints":[],"elapsedUs":0}}
        --> {"jsonrpc":"2.0","id":4,"method":"explain","params":{"selection":{"cwd":"/tree"},"matcher":{"pattern":"f($A)"},"language":"rs"}}
        <-- {"jsonrpc":"2.0","id":4,"requestId":"1-3","result":{"revision":{"epoch":0,"number":0},"requirements":{"Rust":["kind call_expression","text \"f\"","kind identifier","kind arguments"]},"steps":[{"step":"files selected","files":3},{"step":"in a language of the pattern","files":3},{"step":"with the node kinds required","files":2},{"step":"with the text required","files":2}],"filesVerified":2,"filesRemembered":0,"filesMatched":2,"matches":3,"micros":{"match":0,"plan":0,"refresh":0},"hints":[]}}
        --> {"jsonrpc":"2.0","id":5,"method":"parse","params":{"cwd":"/tree/src","path":"c.rs","cst":true}}
        <-- {"jsonrpc":"2.0","id":5,"requestId":"1-4","result":{"language":"Rust","tree":"(source_file\n  (function_item\n    \"fn\"\n    name: (identifier)\n    parameters: (parameters\n      \"(\"\n      \")\")\n    body: (block\n      \"{\"\n      \"}\")))\n","nodes":10,"errors":[]}}
        --> {"jsonrpc":"2.0","id":6,"method":"parse","params":{"text":"{\"a\": }","language":"json"}}
        <-- {"jsonrpc":"2.0","id":6,"requestId":"1-5","result":{"language":"Json","tree":"(document\n  (object\n    (pair\n      key: (string\n        (string_content))\n      value: (MISSING number))))\n","nodes":11,"errors":[{"range":{"byteOffset":{"start":5,"end":5},"start":{"line":0,"column":5},"end":{"line":0,"column":5}},"missing":"number"}]}}
        --> {"jsonrpc":"2.0","id":7,"method":"run","params":{"selection":{"cwd":"/tree"},"matcher":{"pattern":"f(); g()"},"language":"rust"}}
        <-- {"jsonrpc":"2.0","id":7,"requestId":"1-6","error":{"code":-32010,"message":"cannot parse query as a valid pattern","data":{"code":"invalid_pattern","retryable":false,"help":"A pattern is one node; this parses as 2 (expression_statement, expression_statement), the second from byte 5 on. Put it into its surroundings and choose the part with `--selector KIND`.","causes":["Multiple AST nodes are detected. Please check the pattern source `f(); g()`."],"offset":5}}}
        --> {"jsonrpc":"2.0","method":"$/cancel","params":{"id":99}}
        --> {"jsonrpc":"2.0","id":8,"method":"rum"}
        <-- {"jsonrpc":"2.0","id":8,"requestId":"1-7","error":{"code":-32601,"message":"there is no method `rum`","data":{"code":"unknown_method","retryable":false}}}
        --> {"jsonrpc":"2.0","id":9,"method":"status","params":{}}
        <-- {"jsonrpc":"2.0","id":9,"requestId":"1-8","result":{"server":{"name":"astscope","version":"1.2.3"},"pid":0,"socket":"/run/daemon.sock","uptimeSeconds":0,"idleExitSeconds":null,"clients":1,"sessions":[{"session":1,"client":"nc 1"}],"memory":{"text":57,"trees":0,"indexes":0,"caches":0,"residentAnon":0,"residentFile":0},"workspaces":[{"root":"/tree","revision":{"epoch":0,"number":0},"indexing":false,"filesSeen":3,"filesParsed":3,"skipped":{},"filesKept":0,"languages":{"Rust":3},"sourceBytes":57,"nodes":52,"treeBytes":0,"indexedInMs":0,"remembered":{"queries":2,"results":4,"bytes":0,"hits":0,"misses":4},"breakers":[{"name":"files","state":"closed","failures":0},{"name":"parsing","state":"closed","failures":0}],"watcher":{"state":"native","pauseMs":0,"settleMs":50,"directories":2,"waiting":0,"proven":0,"looked":0},"scrub":{"enabled":false,"checked":0,"files":0,"cycles":0,"drift":{"content":0,"tree":0,"missing":0,"ghost":0}}}]}}
        --> {"jsonrpc":"2.0","id":10,"method":"points","params":{"cwd":"/tree/src","path":"a.rs","level":"minimal"}}
        <-- {"jsonrpc":"2.0","id":10,"requestId":"1-9","result":{"language":"Rust","impactPercent":4,"points":[{"id":"2f63004dc8a8176d16cadf0c62a63e40","correlation":"corr_function_entry_2f63004dc8a8176d16cadf0c62a63e40","kind":"function_entry","strategy":"function_boundary","priority":90,"language":"Rust","symbol":"main/0","name":"main","arity":0,"public":false,"patternMatching":false,"guards":false,"captures":["args","return"],"start":{"line":0,"column":0}},{"id":"b4a8cdc8ca9f44fdbe61067967b686c6","correlation":"corr_function_exit_b4a8cdc8ca9f44fdbe61067967b686c6","kind":"function_exit","strategy":"function_boundary","priority":90,"language":"Rust","symbol":"main/0","name":"main","arity":0,"public":false,"patternMatching":false,"guards":false,"captures":["return"],"start":{"line":0,"column":0}}]}}
        --> {"jsonrpc":"2.0","id":11,"method":"stop","params":{"drain":true}}
        <-- {"jsonrpc":"2.0","id":11,"result":{}}
    "#]].assert_eq(&(transcript.join("\n") + "\n"));
}
