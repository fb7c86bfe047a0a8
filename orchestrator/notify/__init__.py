"""
Notifications: webhooks, mails and chats about failures, lateness and recovery.

    attach     run the notifier in orchestrators and schedulers
    notifier   each round: what is to be told, and to whom it is sent
    facts      what Redis knows of ended jobs, mirrors and scrubs
    decide     from facts to events: what is told, and what is over
    records    messages that wait and problems that were told, in Redis
    texts      events as plain text
    plain      foreign text without markup
    kept       what is known of one mirror or scrub, between runs on one machine
    send       send one message to one address, in bounded time
    deliver    the program that does so, with Apprise
"""
