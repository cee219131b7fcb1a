"""`helm test`: the operator is ready, and the API server serves runs. Takes the URL of /readyz."""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path(os.environ.get("ACCOUNT_DIR", "/var/run/secrets/kubernetes.io/serviceaccount"))
HOST, PORT = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
RESOURCES = f"https://{f'[{HOST}]' if ':' in HOST else HOST}:{PORT}/apis/empg.dev/v1alpha1"
SECONDS = float(os.environ.get("TEST_SECONDS", "60"))

deadline = time.monotonic() + SECONDS
while True:
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=5):
            break
    except OSError as error:
        if time.monotonic() > deadline:
            sys.exit(f"the operator is not ready after {SECONDS:.0f} s: {sys.argv[1]}: {error}; see its log")
        time.sleep(1)
print("the operator is ready")

request = urllib.request.Request(RESOURCES, headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"})
trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
try:
    with urllib.request.urlopen(request, timeout=5, context=trust) as answer:
        served = {resource["name"] for resource in json.load(answer)["resources"]}
except urllib.error.HTTPError as error:
    sys.exit(
        f"the API server does not serve empg.dev/v1alpha1: {error}; set crds.enabled=true or apply manifests/crd.yaml"
    )
missing = {"empgruns", "empgruns/status", "empgruns/scale"} - served
if missing:
    sys.exit(f"the API server does not serve {', '.join(sorted(missing))}; apply the custom resource definition again")
print("the API server serves runs")
