"""What leaves: runs logged to other tools, and a sweep as a folder to publish."""
