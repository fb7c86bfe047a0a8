"""Long runs on a real fleet: machines that come and go, and thousands of small jobs."""
