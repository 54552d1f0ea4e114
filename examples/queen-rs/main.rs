//! A client of the registry in Rust, with the standard library alone: it talks HTTP to
//! `rbee-vault serve` over its unix socket. The kernel says who connects, so there is no
//! password to keep.
//!
//!     rustc -O main.rs -o queen-rs
//!     queen-rs SOCKET add NODE HOST USER     registers a node
//!     queen-rs SOCKET list                   prints each node and its status
//!     queen-rs SOCKET state NODE STATUS      reports how a node answered
//!     queen-rs SOCKET watch                  prints changes until the server ends
//!     queen-rs SOCKET sign NODE <challenge   has a login signed by "serve --sign"; see /openapi.json

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::exit;

const BEEHIVES: &str = "/v2/registry/beehives";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [socket, "add", node, host, user] => add(socket, node, host, user),
        [socket, "list"] => list(socket),
        [socket, "state", node, status] => state(socket, node, status),
        [socket, "watch"] => watch(socket),
        [socket, "sign", node] => sign(socket, node),
        _ => Err("usage: queen-rs SOCKET add|list|state|watch|sign ...".to_string()),
    };
    if let Err(message) = done {
        eprintln!("queen-rs: {message}");
        exit(1);
    }
}

fn add(socket: &str, node: &str, host: &str, user: &str) -> Result<(), String> {
    let body = object(&[
        ("node_name", node),
        ("ssh_host", host),
        ("ssh_user", user),
        ("git_repo_url", "https://example.org/rbee.git"),
        ("git_branch", "main"),
        ("install_path", "/opt/rbee"),
    ]);
    // Only a new node is made: somebody else may have registered it.
    let answer = request(socket, "PUT", &format!("{BEEHIVES}/{node}"), &["If-None-Match: *"], &body)?;
    println!("added {}", answer.get("node_name").text());
    Ok(())
}

fn list(socket: &str) -> Result<(), String> {
    let answer = request(socket, "GET", &format!("{BEEHIVES}/list"), &[], "")?;
    for node in answer.get("nodes").items() {
        println!("{} {}", node.get("node_name").text(), node.get("status").text());
    }
    Ok(())
}

fn state(socket: &str, node: &str, status: &str) -> Result<(), String> {
    // A real queen sends the states of all nodes at once, at every heartbeat: what did not
    // change is not written.
    let body = format!("{{\"states\":[{}]}}", object(&[("node_name", node), ("status", status)]));
    let answer = request(socket, "POST", &format!("{BEEHIVES}/states"), &[], &body)?;
    if let Some(missing) = answer.get("missing").items().first() {
        return Err(format!("there is no node {}", missing.text()));
    }
    println!("written {}", answer.get("written").number());
    Ok(())
}

fn sign(socket: &str, node: &str) -> Result<(), String> {
    let mut challenge = String::new();
    io::stdin().read_to_string(&mut challenge).map_err(|e| e.to_string())?;
    let answer = request(socket, "POST", &format!("{BEEHIVES}/{node}/sign"), &[], &challenge)?;
    println!("{}", answer.get("signature").text());
    Ok(())
}

/// Prints changes as they come. The first event has the whole list.
fn watch(socket: &str) -> Result<(), String> {
    let mut reader = send(socket, "GET", "/v2/registry/watch", &[], "")?;
    let head = Head::read(&mut reader)?;
    if head.status != 200 {
        return Err(format!("the server answers {}", head.status));
    }
    let mut event = String::new();
    let mut text = String::new();
    let mut chunks = Chunks { reader, left: 0 };
    while chunks.line(&mut text)? {
        if let Some(name) = text.strip_prefix("event: ") {
            event = name.to_string();
        } else if let Some(data) = text.strip_prefix("data: ") {
            let value = Parser::parse(data)?;
            if event == "list" {
                println!("list {}", value.get("nodes").items().len());
            } else {
                let what = match (value.get("before"), value.get("after")) {
                    (Json::Null, _) => "added",
                    (_, Json::Null) => "removed",
                    _ => "changed",
                };
                println!("{} {}", what, value.get("node_name").text());
            }
            io::stdout().flush().map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// Sends a request, and returns the answer's JSON. An error of the server says what to do.
fn request(socket: &str, method: &str, path: &str, headers: &[&str], body: &str) -> Result<Json, String> {
    let mut reader = send(socket, method, path, headers, body)?;
    let head = Head::read(&mut reader)?;
    let mut text = String::new();
    if head.chunked {
        Chunks { reader, left: 0 }.read_to_string(&mut text).map_err(|e| e.to_string())?;
    } else {
        reader.take(head.length).read_to_string(&mut text).map_err(|e| e.to_string())?;
    }
    let answer = if text.is_empty() { Json::Null } else { Parser::parse(&text)? };
    if head.status < 300 {
        return Ok(answer);
    }
    let error = answer.get("error");
    Err(format!("{}: {} {}", error.get("name").text(), error.get("message").text(), error.get("hint").text()))
}

fn send(socket: &str, method: &str, path: &str, headers: &[&str], body: &str) -> Result<BufReader<UnixStream>, String> {
    let mut stream = UnixStream::connect(socket).map_err(|e| format!("connect to {socket}: {e}"))?;
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for header in headers {
        text += &format!("{header}\r\n");
    }
    text += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{}", body.len(), body);
    stream.write_all(text.as_bytes()).map_err(|e| e.to_string())?;
    Ok(BufReader::new(stream))
}

/// The status line and the headers that matter.
struct Head {
    status: u16,
    length: u64,
    chunked: bool,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> Result<Head, String> {
        let mut line = String::new();
        reader.read_line(&mut line).map_err(|e| e.to_string())?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("no HTTP answer")?;
        let mut head = Head { status, length: 0, chunked: false };
        loop {
            line.clear();
            if reader.read_line(&mut line).map_err(|e| e.to_string())? == 0 || line.trim().is_empty() {
                return Ok(head);
            }
            let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.trim().parse().map_err(|_| "a bad length")?,
                "transfer-encoding" => head.chunked = value.trim() == "chunked",
                _ => {}
            }
        }
    }
}

/// A body in chunks (RFC 9112, section 7.1).
struct Chunks<R: BufRead> {
    reader: R,
    left: u64,
}

impl<R: BufRead> Chunks<R> {
    /// Reads the next line. False: the body has ended.
    fn line(&mut self, text: &mut String) -> Result<bool, String> {
        let mut bytes = Vec::new();
        let mut one = [0];
        while self.read(&mut one).map_err(|e| e.to_string())? == 1 && one[0] != b'\n' {
            bytes.push(one[0]);
        }
        *text = String::from_utf8(bytes).map_err(|e| e.to_string())?;
        Ok(one[0] == b'\n')
    }
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "a bad chunk");
        if self.left == 0 {
            let mut line = String::new();
            while line.trim().is_empty() {
                line.clear();
                if self.reader.read_line(&mut line)? == 0 {
                    return Ok(0);
                }
            }
            self.left = u64::from_str_radix(line.trim(), 16).map_err(|_| bad())?;
            if self.left == 0 {
                return Ok(0);
            }
        }
        let want = out.len().min(self.left as usize);
        let n = self.reader.read(&mut out[..want])?;
        self.left -= n as u64;
        Ok(n)
    }
}

fn object(fields: &[(&str, &str)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(k, v)| format!("{}:{}", quote(k), quote(v))).collect();
    format!("{{{}}}", fields.join(","))
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if (c as u32) < 0x20 => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out + "\""
}

/// As much of JSON as the registry sends.
enum Json {
    Null,
    Bool,
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    fn get(&self, name: &str) -> &Json {
        match self {
            Json::Object(fields) => fields.get(name).unwrap_or(&Json::Null),
            _ => &Json::Null,
        }
    }
    fn text(&self) -> &str {
        match self {
            Json::Text(text) => text,
            _ => "",
        }
    }
    fn number(&self) -> f64 {
        match self {
            Json::Number(number) => *number,
            _ => 0.0,
        }
    }
    fn items(&self) -> &[Json] {
        match self {
            Json::List(items) => items,
            _ => &[],
        }
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn parse(text: &'a str) -> Result<Json, String> {
        Parser { text: text.as_bytes(), at: 0 }.value()
    }

    fn peek(&mut self) -> Result<u8, String> {
        while self.at < self.text.len() && self.text[self.at].is_ascii_whitespace() {
            self.at += 1;
        }
        self.text.get(self.at).copied().ok_or_else(|| "JSON that ends early".to_string())
    }

    fn expect(&mut self, what: u8) -> Result<(), String> {
        if self.peek()? != what {
            return Err(format!("JSON without a {:?} at {}", what as char, self.at));
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self) -> Result<Json, String> {
        match self.peek()? {
            b'{' => {
                let mut fields = BTreeMap::new();
                self.list(b'{', b'}', |p| {
                    let name = p.string()?;
                    p.expect(b':')?;
                    let value = p.value()?;
                    fields.insert(name, value);
                    Ok(())
                })?;
                Ok(Json::Object(fields))
            }
            b'[' => {
                let mut items = Vec::new();
                self.list(b'[', b']', |p| {
                    items.push(p.value()?);
                    Ok(())
                })?;
                Ok(Json::List(items))
            }
            b'"' => Ok(Json::Text(self.string()?)),
            _ => self.word(),
        }
    }

    fn list(&mut self, begin: u8, end: u8, mut item: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        self.expect(begin)?;
        if self.peek()? == end {
            return self.expect(end);
        }
        loop {
            item(self)?;
            if self.peek()? != b',' {
                return self.expect(end);
            }
            self.at += 1;
        }
    }

    fn word(&mut self) -> Result<Json, String> {
        let start = self.at;
        while self.at < self.text.len() && !b",]} \n".contains(&self.text[self.at]) {
            self.at += 1;
        }
        match std::str::from_utf8(&self.text[start..self.at]).unwrap_or("") {
            "null" => Ok(Json::Null),
            "true" | "false" => Ok(Json::Bool),
            number => number.parse().map(Json::Number).map_err(|_| format!("bad JSON at {start}")),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        self.expect(b'"')?;
        let mut out = Vec::new();
        loop {
            let c = *self.text.get(self.at).ok_or("a text that ends early")?;
            self.at += 1;
            match c {
                b'"' => return String::from_utf8(out).map_err(|e| e.to_string()),
                b'\\' => {
                    let c = self.escape()?;
                    out.extend(c.to_string().bytes());
                }
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let c = *self.text.get(self.at).ok_or("a text that ends early")?;
        self.at += 1;
        Ok(match c {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let high = self.hex()?;
                let code = if (0xd800..0xdc00).contains(&high) && self.text[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    0x10000 + ((high - 0xd800) << 10) + self.hex()?.wrapping_sub(0xdc00)
                } else {
                    high
                };
                char::from_u32(code).ok_or("a bad escape")?
            }
            c => c as char,
        })
    }

    fn hex(&mut self) -> Result<u32, String> {
        let digits = self.text.get(self.at..self.at + 4).ok_or("a bad escape")?;
        self.at += 4;
        std::str::from_utf8(digits).ok().and_then(|d| u32::from_str_radix(d, 16).ok()).ok_or_else(|| "a bad escape".to_string())
    }
}
