"""
What a process tells about itself.

    logs       one form of log lines
    redaction  no secrets in them
    tracing    traces for OpenTelemetry
    metrics/   metrics for Prometheus
"""
