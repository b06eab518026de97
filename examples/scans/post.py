"""The same as post.sh in Python: post.py KEY.pem FILE http://127.0.0.1:9205"""

import base64
import json
import sys
import time
import urllib.request
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

key = load_pem_private_key(Path(sys.argv[1]).read_bytes(), None)
data, now = Path(sys.argv[2]).read_bytes(), int(time.time())
public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
fields = {"data_base64": data, "public_key": public, "signature": key.sign(str(now).encode() + data)}
body = {name: base64.b64encode(value).decode() for name, value in fields.items()} | {"timestamp": now}
print(urllib.request.urlopen(f"{sys.argv[3]}/v1/mesh/ingest", json.dumps(body).encode()).read().decode())
