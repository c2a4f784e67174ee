import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from halve.testing.chat import completion
from halve.testing.word_service import TOPICS, questions, write_log


@pytest.fixture
def behind():
    """A chat server that answers with the topic of the question and the number of its answer."""
    counts = []

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            words = body["messages"][-1]["content"].split()
            counts.append(1)
            topic = next(name for name, its_words in TOPICS.items() if set(words) & set(its_words))
            content = json.dumps(completion(f"{topic} {len(counts)}")).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format, *args):
            """Say nothing."""

    listener = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{listener.server_address[1]}/v1"
    listener.shutdown()
    thread.join()
    listener.server_close()


def served(url, *options, cwd):
    """Start the command; return the process and the URL that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "halve.cli", "cache", "serve", url, "--port", "0", "--json", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
        env={**os.environ, "HALVE_UPSTREAM_KEY": ""},
    )  # fmt: skip
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return process, json.loads(line)["url"]


def ask(url, text):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    sent = urllib.request.Request(
        f"{url}/v1/chat/completions", body, {"Content-Type": "application/json", "Authorization": "Bearer k"}
    )
    with urllib.request.urlopen(sent, timeout=20) as reply:
        page = json.loads(reply.read())
    return reply.headers["x-halve-cache"], page["choices"][0]["message"]["content"]


def test_from_a_log_to_answers_that_survive_a_kill(halve_cli, tmp_path, behind):
    write_log(tmp_path)
    replay = ["cache", "replay", "log.jsonl", "--encoder", "encoder", "--precision", 0.8, "--policy", "policy.json"]
    assert halve_cli(replay, cwd=tmp_path).returncode == 0
    options = ("--policy", "policy.json", "--cache", "answers.sqlite")
    process, url = served(behind, *options, cwd=tmp_path)
    texts, topics = questions(250, seed=6)
    try:
        found = [ask(url, text) for text in texts]
        near = [
            (said, list(TOPICS)[topic])
            for (how, said), topic in zip(found[150:], topics[150:], strict=True)
            if how in ("semantic", "merged")
        ]
        assert found[0] == ("miss", f"{list(TOPICS)[topics[0]]} 1")
        assert len(near) > 20
        assert sum(said.startswith(topic) for said, topic in near) >= 0.7 * len(near)
        while (found := ask(url, texts[0]))[0] != "exact":  # it is stored beside the reply
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
    process, url = served(behind, *options, cwd=tmp_path)
    try:
        assert ask(url, texts[0]) == found
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in errors) == (0, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["localhost"], "upstream must be an http or https URL such as http://host/v1, without"),
        (["http://localhost/v1", "--policy", "missing.json"], "missing.json"),
        (["http://localhost/v1", "--encoder", "minilm"], "encoder must be given with a policy only"),
        (["http://localhost/v1", "--ttl-seconds", "0"], "ttl_seconds must be above 0"),
        (["http://localhost/v1", "--usd-per-answer", "-1"], "usd_per_answer must be at least 0"),
    ],
)
def test_bad_input_is_one_sentence(halve_cli, tmp_path, arguments, message):
    done = halve_cli(["cache", "serve", *arguments], cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
