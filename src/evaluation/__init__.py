"""How good is a recognizer, and how fast: scored sets of speech, for any backend, by measurement.

What flows, in the order in which it does:

    sets → clips ─► player → recording ─► timing, scoring → results ─► summary → profiles, compare ─► tables, report

`clips` and `sets` say what is spoken; `player` streams it to a recognizer and keeps what was heard, and when; `timing`
and `scoring` turn that into figures per clip; `results` is the document they are kept in; `summary` pools them with
confidence intervals (`statistics`); `profiles` holds them against limits, `compare` against an earlier run; `report`
draws them. Everything but `player`, `golden` and `shadow` is a function of its arguments.
"""
