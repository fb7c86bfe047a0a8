"""Notifications: what is told, in which words, and how it is sent."""
