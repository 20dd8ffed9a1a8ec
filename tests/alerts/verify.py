"""Asks the reference library of Standard Webhooks whether messages are from who has the secret; prints a JSON list."""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError


def verified(message: dict) -> bool:
    try:
        Webhook(message["secret"]).verify(message["body"], message["headers"])
    except WebhookVerificationError:
        return False
    return True


with open(sys.argv[1], encoding="utf-8") as file:
    print(json.dumps([verified(message) for message in json.load(file)]))
