"""What the two HTTP APIs say of themselves, held against what they do by schemathesis."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.web import call

# A server error, a status or a media type that is not described, a body or a header that its schema does not allow.
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
          "response_headers_conformance"]
# Generated requests of each operation and phase.
EXAMPLES = 25
# The same requests in every run.
SEED = 7
LIMIT_S = 150
# Who asks for a command's final outcome waits until its deadline, which may be a day: here it is a second.
HOOKS = """
import schemathesis


@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict) and "wait" in body:
        return {**body, "deadline_ms": 1_000}
    return body
"""


def conforms(tmp_path: Path, url: str, key: str, parameters: dict[str, str], least: int) -> None:
    """Sends what the description allows, and what it does not, and lets schemathesis judge the answers."""
    # Values of things that are there, so that not all requests are about nothing.
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in parameters.items()]
    config = tmp_path / "schemathesis.toml"
    config.write_text("[parameters]\n" + "".join(lines) + f'[headers]\nAuthorization = "Bearer {key}"\n')
    (tmp_path / "hooks.py").write_text(HOOKS)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color", "run", url,
               "--checks", ",".join(CHECKS), "-n", str(EXAMPLES), "--seed", str(SEED), "--warnings", "off"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path,
                           env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
                           timeout=LIMIT_S, check=False)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said[-6000:]
    sent = re.search(r"(\d+) generated, (\d+) passed", said)
    assert sent and sent[1] == sent[2] and int(sent[1]) >= least, said[-2000:]


@pytest.mark.limit(LIMIT_S)
async def test_every_answer_of_the_api_is_as_it_is_described(server, tmp_path):
    about = {"building": "b1", "to": "b1/g1"}
    await server.gateway_token("b1/g1")
    conforms(tmp_path, f"{server.http(0)}/openapi.json", server.api_key, about, 500)


@pytest.mark.limit(LIMIT_S)
async def test_every_answer_of_the_admin_api_is_as_it_is_described(server, tmp_path):
    if "control" not in server.ready:
        pytest.skip("the tenants of this cluster come from a file")
    control, credential = server.ready["control"], server.ready["control_credential"]
    # A tenant whose keys come and go meanwhile; it may itself.
    made = await call(control, "POST", "/admin/v1/tenants", key=credential, body={"tenant": "probe"})
    assert made.status == 201, made.body
    conforms(tmp_path, f"{control}/admin/openapi.json", credential, {"tenant": "probe"}, 1000)
