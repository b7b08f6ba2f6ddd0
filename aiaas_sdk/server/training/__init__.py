"""Training on this server: files that clients upload, and jobs that are done beside the serving.

    folder     records on disk: whole or not at all, each its owner's
    forms      multipart bodies, read straight to disk
    files, uploads    OpenAI's /v1/files and /v1/uploads
    records    jobs on disk, and their events
    jobs       OpenAI's /v1/fine_tuning/jobs
    runner     who does them, one after the other
    working    the process that does one

::

    FOLDER/lock                    held by the process that runs jobs; the system lets go of it with the process
          /files/ID/record.json, data
          /uploads/ID/record.json, PART.SHA256.SIZE
                     /lock             held by the request that ends it
          /jobs/ID/record.json     what was asked, and what became of it
                  /events.jsonl    what the run told
                  /training, validation    the rows, until it has ended
                  /checkpoints     of the run
                  /cancel          somebody wants it to end

Everything stands on disk before it is answered, so that a server that is killed at any moment goes on with it.
"""
