"""What the course's authors run; learners do not need it."""
