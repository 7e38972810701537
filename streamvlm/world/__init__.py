"""StreamWorld: seeded streams of shapes and a sign, with an exact event log, questions and real video."""
