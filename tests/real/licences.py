"""Signs and verifies with PyJWT: one question as JSON in the argument, one answer as JSON on stdout."""

import json
import sys

import jwt

question = json.loads(sys.argv[1])
if "sign" in question:
    asked = question["sign"]
    headers = {"kid": asked["kid"]}
    token = jwt.encode(asked["claims"], asked["secret"], algorithm=asked["algorithm"], headers=headers)
    print(json.dumps({"token": token}))
else:
    asked = question["verify"]
    try:
        claims = jwt.decode(
            asked["token"],
            asked["secret"],
            algorithms=["HS256"],
            issuer=asked["issuer"],
            audience=asked["audience"],
        )
        print(json.dumps({"claims": claims}))
    except jwt.PyJWTError as error:
        print(json.dumps({"error": str(error)}))
