"""The review page: look at a scan, draw or correct the mask, fill it, compare, accept or reject; in the browser.

A small server on this machine's loopback address (``server``) hands out a page without any build step
(``page/``) and answers its requests (``api``). Only whoever holds the token of this start gets an answer
(``guard``); files are known by random ids (``shelf``); fills run in a process of their own (``jobs``, ``worker``).
"""
