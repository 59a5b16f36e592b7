// Signs and verifies with npm's jsonwebtoken: one question as JSON in the argument, one answer as JSON on stdout.
import { createRequire } from 'node:module'

const jwt = createRequire(process.env.TOLLKEEPER_JWT + '/node/')('jsonwebtoken')
const { sign, verify } = JSON.parse(process.argv[2])

if (sign) {
  const { claims, secret, kid, algorithm } = sign
  console.log(JSON.stringify({ token: jwt.sign(claims, secret, { algorithm, keyid: kid }) }))
} else {
  // As a publisher of licensed servers is told to verify.
  const { token, secret, issuer, audience } = verify
  try {
    console.log(JSON.stringify({ claims: jwt.verify(token, secret, { algorithms: ['HS256'], issuer, audience }) }))
  } catch (error) {
    console.log(JSON.stringify({ error: error.message }))
  }
}
