"""A mail server: keeps each mail as a line of JSON in a file, and refuses some recipients as real servers do."""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult


class Keeper:
    def __init__(self, path: str) -> None:
        self.path = path
        self.later = True

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:
        if address.startswith("nobody@"):
            return "550 5.1.1 no such user here"
        if address.startswith("later@") and self.later:
            self.later = False
            return "451 4.7.1 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        parts = [
            {"type": part.get_content_type(), "text": part.get_content()}
            for part in mail.walk()
            if not part.is_multipart()
        ]
        kept = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "id": mail["message-id"],
            "subject": mail["subject"],
            "type": mail.get_content_type(),
            "parts": parts,
            "tls": session.ssl is not None,
            "user": session.auth_data.login.decode() if session.auth_data else None,
        }
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(kept) + "\n")
        return "250 kept"


def authenticated(server, session, envelope, mechanism, data) -> AuthResult:
    return AuthResult(success=data.password == b"a password", auth_data=data)


class Mails(Controller):
    def __init__(self, port: int, path: str, certificate: str, key: str) -> None:
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.tls.load_cert_chain(certificate, key)
        super().__init__(Keeper(path), hostname="127.0.0.1", port=port)

    def factory(self) -> SMTP:
        return SMTP(self.handler, tls_context=self.tls, authenticator=authenticated, auth_require_tls=True)


mails = Mails(int(sys.argv[1]), *sys.argv[2:5])
mails.start()
asyncio.new_event_loop().run_forever()
