"""Every class of fault has its path and a message that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import ConfigFaults, load

PROVIDER = '[[provider]]\nname = "openai"\nbase_url = "https://api.openai.com/v1"\n'
MODEL = '[[model]]\nname = "chat"\ntargets = [{ provider = "openai", model = "gpt-4o-mini" }]\n'
GOOD = PROVIDER + MODEL
KEY = '[[key]]\nname = "dev"\nsecret = "sk-0123456789abcdef"\n'


def faults_of(text: str, **environ: str) -> list[str]:
    try:
        load(None, environ=environ, text=text)
    except ConfigFaults as faults:
        return [str(fault) for fault in faults.faults]
    return []


def assistant(fields: str, loaders: str = "") -> str:
    return f'{GOOD}[[assistant]]\nname = "support"\nmodel = "chat"\n{fields}\n{loaders}'


def loader(name: str, fields: str = 'kind = "profile"') -> str:
    return f'[[assistant.loader]]\nname = "{name}"\n{fields}\n'


def http(fields: str, hosts: str = '"crm.example.com"') -> str:
    return f"context.allowed_hosts = [{hosts}]\n" + assistant("", loader("crm", 'kind = "http"\n' + fields))


def test_the_base_of_these_tests_has_no_fault() -> None:
    assert faults_of(GOOD + KEY) == []
    assert faults_of(http('url = "https://crm.example.com/u/{user}?q={input}"')) == []


STRUCTURE = [
    ("[server]\nworker = 3", "server.worker: unknown field; did you mean 'workers'?"),
    ("providers = []", "providers: unknown field; did you mean 'provider'?"),
    ('"§ 1" = 1', '"\\u00a7 1": unknown field; known: \'server\', \'admission\', \'timeouts\', \'store\', \'log\', '
     "'context', 'provider', 'model', 'assistant', 'key', 'identity', 'team', …"),
    ("server = 3", "server: expected a table, got a whole number"),
    ('provider = "openai"', "provider: expected an array, got a string"),
    ('[provider]\nname = "a"', "provider: expected an array, got a table; write [[provider]]"),
    ("provider = [1979-05-27]", "provider[0]: expected a table, got a date or time"),
    (PROVIDER + "[[model]]\ntargets = [{ provider = 'openai', model = 'm' }]",
     "model[0].name: is missing and has no default"),
    ('[[provider]]\nname = "x"', "provider[0].base_url: is missing and has no default"),
    (PROVIDER + 'dialect = "opnai"', "provider[0].dialect: 'opnai' is not known here; did you mean 'openai'?"),
    ('[log]\nlevel = "loud"', "log.level: 'loud' is not known here; known: 'debug', 'info', 'warning', 'error'"),
    (PROVIDER + "headers = 3", "provider[0].headers: expected a table, got a whole number"),
    (PROVIDER + "headers = { X = 3 }", "provider[0].headers.X: expected a string, got a whole number"),
    (PROVIDER + "api_key = 12", "provider[0].api_key: expected a string, got a whole number"),
]  # fmt: skip

NUMBERS = [
    ("[admission]\nworkers = true", "admission.workers: expected a whole number, got a boolean"),
    ('[admission]\nworkers = "20"', "admission.workers: expected a whole number, got a string"),
    ("[admission]\nworkers = 20.0", "admission.workers: expected a whole number, got a number"),
    ("[admission]\nworkers = 0", "admission.workers: must be at least 1"),
    ("[admission]\nqueue = -1", "admission.queue: must be at least 0"),
    ("[server]\nbacklog = 65536", "server.backlog: must be at most 65535"),
    ("[timeouts]\nstall_s = 0", "timeouts.stall_s: must be above 0"),
    ("[timeouts]\nstall_s = nan", "timeouts.stall_s: must be a finite number"),
    ("[timeouts]\nstall_s = inf", "timeouts.stall_s: must be a finite number"),
    ("[timeouts]\nstall_s = 31536001", "timeouts.stall_s: must be at most 31536000"),
    ("[timeouts]\nstall_s = true", "timeouts.stall_s: expected a number, got a boolean"),
    ("[log]\nrequests = 1", "log.requests: expected true or false, got a whole number"),
    ("server.workers = 4\nadmission.workers = 3",
     "admission.workers: 3 cannot be shared out among 4 processes (server.workers); every process needs at least 1"),
]  # fmt: skip

SERVER = [
    ("server.bind = '8080'", "server.bind: expected HOST:PORT, as in 127.0.0.1:8080 or [::1]:8080"),
    ("server.bind = '::1:8080'", "server.bind: expected HOST:PORT, as in 127.0.0.1:8080 or [::1]:8080"),
    ("server.bind = '[localhost]:80'", "server.bind: the brackets hold no IPv6 address; expected [::1]:8080"),
    ("server.bind = '127.0.0.1:65536'", "server.bind: the port 65536 is above 65535"),
    ("server.bind = ':80'",
     "server.bind: the host is missing; 127.0.0.1:80 is this machine only, 0.0.0.0:80 every interface"),
    ("server.bind = '0.0.0.0:80'",
     "server.bind: '0.0.0.0:80' can be reached from other machines; without a [[key]] the gateway answers on loopback "
     "only; add a [[key]] or bind to 127.0.0.1:80"),
    ("server.bind = 'localhost.example:80'",
     "server.bind: 'localhost.example:80' can be reached from other machines; without a [[key]] the gateway answers "
     "on loopback only; add a [[key]] or bind to 127.0.0.1:80"),
    ("store.url = 'mysql://x'",
     "store.url: expected sqlite:///PATH, as in sqlite:///sluice.db, or postgresql://USER@HOST/DATABASE"),
    ("context.allowed_hosts = ['https://x']",
     "context.allowed_hosts[0]: 'https://x' is no host; write api.example.com or api.example.com:8443, "
     "without scheme and path"),
]  # fmt: skip

NAMES = [
    (GOOD + PROVIDER, "provider[1].name: 'openai' is already the name of provider[0]; names must differ"),
    (GOOD + MODEL, "model[1].name: 'chat' is already the name of model[0]; names must differ"),
    (GOOD + "[[assistant]]\nname = 'chat'\nmodel = 'chat'",
     "assistant[0].name: 'chat' is already the name of model[0]; names must differ"),
    (GOOD + KEY + KEY.replace("abcdef", "abcdee"),
     "key[1].name: 'dev' is already the name of key[0]; names must differ"),
    (assistant("", loader("a") + loader("a")),
     "assistant[0].loader[1].name: 'a' is already the name of assistant[0].loader[0]; names must differ"),
    (KEY.replace('"dev"', '" dev"'),
     "key[0].name: must be 1 to 200 printable characters without spaces at the ends"),
    (PROVIDER.replace('"openai"', '"open ai"'),
     "provider[0].name: 'open ai' goes into a header: ASCII without spaces only"),
    (assistant("", loader("a b")),
     "assistant[0].loader[0].name: stands in the template as {name}: a letter, then letters, digits, '_' or '-'"),
    (GOOD + "[[assistant]]\nname = 'a/*'\nmodel = 'chat'",
     "assistant[0].name: an assistant's name holds no '*'; only a model's name may end in one"),
]  # fmt: skip

REFERENCES = [
    (PROVIDER + MODEL.replace('"openai"', '"opnai"'),
     "model[0].targets[0].provider: no provider is called 'opnai'; did you mean 'openai'?"),
    (PROVIDER + MODEL.replace('"openai"', '"zzz"'),
     "model[0].targets[0].provider: no provider is called 'zzz'; known: 'openai'"),
    (MODEL, "model[0].targets[0].provider: no provider is called 'openai'; there is no [[provider]]"),
    ("[[model]]\nname = 'm'\ntargets = []",
     "model[0].targets: is empty; a model needs at least one target { provider, model }"),
    (GOOD + "[[assistant]]\nname = 'a'\nmodel = 'caht'",
     "assistant[0].model: no model is called 'caht'; did you mean 'chat'?"),
    ("[[assistant]]\nname = 'a'\nmodel = 'caht'",
     "assistant[0].model: no model is called 'caht'; there is no [[model]]"),
    (GOOD + "[[assistant]]\nname = 'a'", "assistant[0].model: is missing and has no default"),
    (GOOD + KEY + "models = ['chat', 'chatt']",
     "key[0].models[1]: no model or assistant is called 'chatt'; did you mean 'chat'?"),
    (assistant("system = '{dcos} {{dogs}} {\"json\": 1}'", loader("docs")),
     "assistant[0].system: {dcos} names no loader of this assistant; did you mean 'docs'?"),
    (assistant("system = '{docs}'"),
     "assistant[0].system: {docs} names no loader of this assistant; this assistant has no loader"),
    (assistant("", loader("docs", 'kind = "retreival"')),
     "assistant[0].loader[0].kind: 'retreival' is not known here; did you mean 'retrieval'?"),
    (assistant("", loader("docs", "")),
     "assistant[0].loader[0].kind: is missing; known: 'retrieval', 'profile', 'context', 'http'"),
    (assistant("", loader("p", "kind = 'profile'\ntop_k = 3")),
     "assistant[0].loader[0].top_k: unknown field; known: 'name', 'required', 'timeout_s', 'max_chars', 'kind'"),
]  # fmt: skip

WILDCARDS = [
    (PROVIDER + MODEL.replace('"chat"', '"a*b"'), "model[0].name: 'a*b' may hold one '*', at its end"),
    (PROVIDER + MODEL.replace('"chat"', '"a**"'), "model[0].name: 'a**' may hold one '*', at its end"),
    (PROVIDER + MODEL.replace('"gpt-4o-mini"', '"*"'),
     "model[0].targets[0].model: ends in '*', which stands for what the model's name leaves open; that name must end "
     "in '*', too"),
    (PROVIDER + MODEL.replace('"gpt-4o-mini"', '"a*b"'),
     "model[0].targets[0].model: 'a*b' may hold one '*', at its end"),
    (PROVIDER + MODEL.replace('"gpt-4o-mini"', '"a b"'),
     "model[0].targets[0].model: goes into a header: at least one character, ASCII without spaces only"),
    (PROVIDER + MODEL.replace('"chat"', '"o/*"') + "[[assistant]]\nname = 'a'\nmodel = 'o/*'",
     "assistant[0].model: 'o/*' leaves open which model; write the whole name"),
]  # fmt: skip

PROVIDERS = [
    (PROVIDER.replace("https:", "ftp:"), "base_url: must be an absolute URL, as in https://api.example.com/v1"),
    (PROVIDER.replace("https://api.openai.com/v1", "api.openai.com"),
     "base_url: must be an absolute URL, as in https://api.example.com/v1"),
    (PROVIDER.replace("api.openai.com", "x:99999"), "base_url: is no URL: its host or port cannot be read"),
    (PROVIDER.replace("api.openai.com", "exa$mple"), "base_url: is no URL: its host or port cannot be read"),
    (PROVIDER.replace("api.openai.com", "[::1"), "base_url: is no URL: its host or port cannot be read"),
    (PROVIDER.replace("api.", "me:pw@api."),
     "base_url: holds a user or password; put the secret into a header instead"),
    (PROVIDER.replace("/v1", "/v1?a=b"),
     "base_url: holds a query or fragment; the request's path is appended to it, so it must end with a path"),
    (PROVIDER.replace("/v1", "/v1\\n"),
     "base_url: holds a space, a control character or a character outside ASCII; percent-encode it"),
    (PROVIDER + 'headers = { "X Y" = "1" }', "headers.\"X Y\": is no header name; letters, digits and '-' are safe"),
    (PROVIDER + 'headers = { Host = "h" }', "headers.Host: is set by the gateway itself; remove it"),
    (PROVIDER + 'headers = { X-A = "1", x-a = "2" }',
     "headers.x-a: stands here twice, in different case; keep one"),
    (PROVIDER + 'headers = { X-A = "1\\r\\nX-B: 2" }',
     "headers.X-A: its value holds a control character, one outside ASCII, or a space at an end"),
    (PROVIDER + 'api_key = "k"\nheaders = { authorization = "x" }',
     "headers: holds Authorization, which api_key already sets; remove one of them"),
    (PROVIDER + 'api_key = "sk-1\\n"',
     "api_key: holds a space, a line break or another character that cannot stand in a header; "
     "is there a line break at the end of the variable?"),
]  # fmt: skip

PRESETS = [
    ('preset = "mistrl"', "preset: no preset is called 'mistrl'; did you mean 'mistral'?"),
    ('preset = "mistral"\ndialect = "gemini"', "dialect: is 'openai' for this preset; leave one of the two out"),
    ('preset = "azure"', "base_url: is missing and has no default"),
    ('usage_in_stream = false\npreset = "groq"',
     "usage_in_stream: belongs into quirks: write quirks = { usage_in_stream = … }"),
    ('preset = "groq"\nquirks = { usage_in_streams = true }',
     "quirks.usage_in_streams: unknown field; did you mean 'usage_in_stream'?"),
    ('preset = "groq"\nquirks = true', "quirks: expected a table, got a boolean"),
    ('preset = "groq"\napi_key = "k1"\napi_keys = ["k2", "k1"]',
     "api_keys[1]: is the same key as api_key; two of one share one limit"),
    ('preset = "groq"\napi_keys = ["k 2"]',
     "api_keys[0]: holds a space, a line break or another character that cannot stand in a header; is there a line "
     "break at the end of the variable?"),
    ('dialect = "anthropic"\napi_key = "k"\nheaders = { X-API-Key = "v" }',
     "headers: holds x-api-key, which api_key already sets; remove one of them"),
    ('preset = "groq"\napi_version = "v"', "api_version: is for dialect 'azure' only; this provider's is 'openai'"),
    ('preset = "groq"\nregion = "r"', "region: is for dialect 'bedrock' only; this provider's is 'openai'"),
    ('dialect = "azure"\nbase_url = "https://a"\napi_version = "a&b"',
     "api_version: is no version, as in 2024-10-21; leave it out for the v1 API"),
    ('preset = "bedrock"\napi_key = "k"', "region: is missing; write it as in us-east-1"),
    ('preset = "bedrock"\napi_key = "k"\nregion = "US/1"', "region: 'US/1' is no region; write it as in us-east-1"),
    ('preset = "bedrock"\nregion = "us-east-1"\naccess_key_id = "A"',
     "secret_access_key: is missing; access_key_id and secret_access_key belong together"),
    ('preset = "bedrock"\nregion = "us-east-1"\napi_key = "k"\nsession_token = "t"',
     "session_token: belongs to access_key_id and secret_access_key, which are missing"),
    ('preset = "bedrock"\nregion = "us-east-1"\napi_key = "k"\naccess_key_id = "A"\nsecret_access_key = "S"',
     "api_key: is one way to sign in, access_key_id the other; remove one of them"),
    ('preset = "bedrock"\nregion = "us-east-1"\naccess_key_id = "A"\nsecret_access_key = "S"\npassthrough = ["/x"]',
     "passthrough: needs an api_key: what is passed through cannot be signed with access_key_id"),
    ('preset = "groq"\npassthrough = ["images/*"]',
     "passthrough[0]: 'images/*' is no path below base_url: it begins with '/', as in \"/files/*\""),
    ('preset = "groq"\npassthrough = ["/a/../b"]',
     "passthrough[0]: '/a/../b' is no path below base_url: it begins with '/', as in \"/files/*\""),
    ('preset = "groq"\nconcurrency = { floor = 5, start = 4 }', "concurrency.start: is less than floor"),
    ('preset = "groq"\nconcurrency = { ceiling = 4 }', "concurrency.ceiling: is less than start"),
    ('preset = "groq"\nbreaker = { open_s = 20 }', "breaker.max_open_s: is less than open_s"),
    ('preset = "groq"\nbreaker = { ratio = 1.5 }', "breaker.ratio: must be at most 1"),
    ('preset = "groq"\nbreaker = { ratio = 0 }', "breaker.ratio: must be above 0"),
    ('preset = "groq"\nretry_budget = { ratio = -0.1 }', "retry_budget.ratio: must be at least 0"),
    ('preset = "groq"\non_disconnect = "stop"', "on_disconnect: 'stop' is not known here; known: 'cancel', 'drain'"),
]  # fmt: skip

SECOND = MODEL.replace("chat", "other")
TWO_TARGETS = (
    '[[model]]\nname = "chat"\ntargets = [{ provider = "openai", model = "a", %s }, '
    '{ provider = "openai", model = "b", %s }]\n'
)
MODELS = [
    (MODEL + 'fallback = ["chat"]', "model[0].fallback[0]: 'chat' is the model itself"),
    (MODEL + 'fallback = ["oter"]\n' + SECOND,
     "model[0].fallback[0]: no model is called 'oter'; did you mean 'other'?"),
    (MODEL + 'fallback = ["x"]', "model[0].fallback[0]: no model is called 'x'; there is no other [[model]]"),
    (MODEL + 'fallback = ["other*"]\n' + SECOND.replace("other", "other*"),
     "model[0].fallback[0]: 'other*' leaves open which model; write a model with a whole name"),
    (MODEL + 'fallback = ["other"]\n' + SECOND + 'fallback = ["chat"]',
     "model[0].fallback: goes round in a circle: 'chat' → 'other' → 'chat'"),
    (MODEL + 'fallback = ["b"]\n' + MODEL.replace("chat", "b") + 'fallback = ["c"]\n' + MODEL.replace("chat", "c")
     + 'fallback = ["b"]', "model[1].fallback: goes round in a circle: 'b' → 'c' → 'b'"),
    (MODEL + "hedge = {}", "model[0].hedge: needs a second target to ask; there is one, and no fallback with another"),
    (MODEL + 'hedge = {}\nfallback = ["other"]\n' + SECOND,
     "model[0].hedge: needs a second target to ask; there is one, and no fallback with another"),
    (TWO_TARGETS % ("weight = 1", "weight = 1") + "hedge = { quantile = 1.0 }",
     "model[0].hedge.quantile: must be at most 0.999"),
    (TWO_TARGETS % ("weight = 0", "weight = 0"),
     "model[0].targets: every weight is 0; at least one target needs a weight above 0"),
    (TWO_TARGETS % ("weight = -1", "weight = 1"), "model[0].targets[0].weight: must be at least 0"),
    (TWO_TARGETS % ("rank = -1", "rank = 0"), "model[0].targets[0].rank: must be at least 0"),
    (TWO_TARGETS % ("rank = 0.5", "rank = 0"), "model[0].targets[0].rank: expected a whole number, got a number"),
    (TWO_TARGETS % ("context_tokens = 0", "rank = 0"), "model[0].targets[0].context_tokens: must be at least 1"),
    (MODEL + "retry = { max = -1 }", "model[0].retry.max: must be at least 0"),
    (MODEL + "timeouts = { stall_s = 0 }", "model[0].timeouts.stall_s: must be above 0"),
    (MODEL + 'midstream = "resume"',
     "model[0].midstream: 'resume' is not known here; known: 'error', 'restart', 'continue'"),
]  # fmt: skip

HTTP_LOADERS = [
    (http('url = "https://{user}.example.com/"'),
     "url: has a placeholder in its scheme or host; a request must not choose where the gateway connects"),
    (http('url = "{input}"'),
     "url: has a placeholder in its scheme or host; a request must not choose where the gateway connects"),
    (http('url = "https://evil.example.com/"'),
     "url: 'evil.example.com' is not in context.allowed_hosts; http loaders go nowhere else, so add it there"),
    (http('url = "https://crm.example.com:8443/"', '"crm.example.com:443"'),
     "url: 'crm.example.com:8443' is not in context.allowed_hosts; http loaders go nowhere else, so add it there"),
    (http('url = "https://crm.example.com@evil.com/"'),
     "url: holds a user or password; put the secret into a header instead"),
    (http('url = "https://crm.example.com/{usr}"'), "url: a placeholder is not known here; did you mean 'user'?"),
    (http('url = "https://crm.example.com/"\nbody = "{}"'),
     "method: is GET, which sends no body; write method = \"POST\" or remove 'body'"),
    (http('url = "https://crm.example.com/"\nmethod = "POST"\nbody = "{"'),
     'body: is no JSON once its placeholders are filled in, as in {"query": {input}, "limit": 3}'),
    (http('url = "https://crm.example.com/"\nmethod = "POST"\nbody = "[{input} {user}, NaN]"'),
     'body: is no JSON once its placeholders are filled in, as in {"query": {input}, "limit": 3}'),
    (http('url = "https://crm.example.com/a/%2e%2E/{user}"'),
     "url: has a '.' or '..' in its path; write where it leads to"),
    (http('url = "https://crm.example.com/"\npointer = "data/0"'),
     "pointer: 'data/0' is no JSON pointer (RFC 6901): empty, or '/' before every step, as in /data/0"),
    (http('url = "https://crm.example.com/"\nheaders = { X = "a\\u0000" }'),
     "headers.X: its value holds a control character, one outside ASCII, or a space at an end"),
]  # fmt: skip

KEYS = [
    (KEY.replace("sk-0123456789abcdef", ""), "key[0].secret: is empty; every client would know it"),
    (KEY + KEY.replace("dev", "ops"), "key[1].secret: is the secret of key[0], too; give every key its own"),
    (KEY.replace("sk-", "sk "),
     "key[0].secret: holds a space, a line break or another character that cannot stand in a header; "
     "is there a line break at the end of the variable?"),
    (KEY + "priority = 'urgent'", "key[0].priority: 'urgent' is not known here; known: 'high', 'normal', 'low'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fault"), STRUCTURE + NUMBERS + SERVER + NAMES + REFERENCES + WILDCARDS + KEYS)
def test_a_fault_is_named_alone_and_exactly(text: str, fault: str) -> None:
    assert faults_of(text) == [fault]


@pytest.mark.parametrize(("text", "fault"), PROVIDERS)
def test_a_fault_of_a_provider_is_named(text: str, fault: str) -> None:
    assert faults_of(text) == [f"provider[0].{fault}"]


@pytest.mark.parametrize(("fields", "fault"), PRESETS)
def test_a_fault_of_a_provider_with_a_preset_is_named(fields: str, fault: str) -> None:
    assert faults_of('[[provider]]\nname = "p"\n' + fields) == [f"provider[0].{fault}"]


@pytest.mark.parametrize(("text", "fault"), MODELS)
def test_a_fault_of_a_model_is_named(text: str, fault: str) -> None:
    assert faults_of(PROVIDER + text) == [fault]


def test_a_bedrock_provider_without_credentials_is_named_as_a_whole() -> None:
    assert faults_of('[[provider]]\nname = "p"\npreset = "bedrock"\nregion = "us-east-1"') == [
        "provider[0]: has no credentials: give access_key_id and secret_access_key, or an api_key"
    ]


@pytest.mark.parametrize(("text", "fault"), HTTP_LOADERS)
def test_a_fault_of_an_http_loader_is_named(text: str, fault: str) -> None:
    assert faults_of(text) == [f"assistant[0].loader[0].{fault}"]


def test_broken_toml_is_named_with_its_line() -> None:
    assert faults_of("[server]\nbind = \n") == ["not TOML: Invalid value (at line 2, column 8)"]


def test_toml_nested_beyond_reason_is_a_fault_and_no_crash() -> None:
    assert faults_of("x = " + "[" * 100_000) == ["not TOML: nested too deeply"]


def test_tls_needs_both_files_and_both_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cert.pem").touch()
    (tmp_path / "folder").mkdir()
    assert faults_of("server.tls_cert = 'cert.pem'") == [
        "server.tls_key: is missing; tls_cert needs it: give both, or none for plain HTTP"
    ]
    assert faults_of("server.tls_cert = 'no.pem'\nserver.tls_key = 'folder'") == [
        "server.tls_cert: no readable file at 'no.pem'",
        "server.tls_key: no readable file at 'folder'",
    ]


@pytest.mark.parametrize("body", ['{"q": {input}, "{user}": "for {user}"}', "{ {user}: 1 }", '"\\"{input}"', "{input}"])
def test_a_body_with_placeholders_inside_and_outside_of_strings_is_json(body: str) -> None:
    assert faults_of(http(f"url = 'https://crm.example.com/'\nmethod = 'POST'\nbody = '''{body}'''")) == []


def test_a_message_spells_out_what_a_terminal_would_obey() -> None:
    assert faults_of('log.level = "\\u001b[2Jinfo"') == [
        "log.level: '\\x1b[2Jinfo' is not known here; did you mean 'info'?"
    ]


def test_a_loader_without_a_placeholder_is_no_fault() -> None:
    assert faults_of(assistant("system = 'Be kind.'", loader("docs"))) == []


def test_an_unreadable_provider_is_not_reported_a_second_time_as_unknown() -> None:
    text = '[[provider]]\nname = 3\nbase_url = "https://x.example/v1"\n' + MODEL
    assert faults_of(text) == ["provider[0].name: expected a string, got a whole number"]
