"""Secrets in a query or in an endpoint's url are in no message, plan or report; a password in an option is refused"""

import pyarrow as pa
from case import ROOT, check, double, end, parquet, runner

model = double()
source = parquet("in", pa.table({"x": pa.array([1, 2], pa.float32())}))
for name in ("auth", "pwd", "jwt", "hmac", "sig", "X-Amz-Credential"):
    url = f"http://127.0.0.1:1/f0.parquet?{name}=none-of-yours"
    options = "input.options={give_up_s: 1}"
    done = runner("plan", "--model", model, "--input", url, "--output", "out", "--set", options, timeout=60)
    check(done.code == 2 and "none-of-yours" not in done.told, f"?{name}= was printed", done)
endpoint = "input.options={endpoint_url: 'http://user:none-of-yours@127.0.0.1:1', give_up_s: 1}"
done = runner("plan", "--model", model, "--input", "s3://b/in", "--output", "out", "--set", endpoint, timeout=60)
told = "env:" in done.told and "none-of-yours" not in done.told
check(done.code == 2 and told, "a password in endpoint_url", done)
check(not list(ROOT.glob("out*")) and source.exists(), "something was written")
end()
