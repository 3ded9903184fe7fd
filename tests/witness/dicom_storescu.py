"""Sends DICOM files to the box as pynetdicom does: an outside witness of tests/dicom_peers.rs.

Usage: dicom_storescu.py PORT FILE...     prints, line by line, the status of C-ECHO and of each file sent twice
"""

import sys

from pydicom import dcmread
from pynetdicom import AE, build_context
from pynetdicom.sop_class import Verification

if len(sys.argv) > 2:
    port, files = int(sys.argv[1]), [dcmread(name) for name in sys.argv[2:]]
    ae = AE(ae_title="PYNETDICOM")
    contexts = [build_context(Verification)]
    for file in files:
        # Only the syntax that the file is in: nothing is converted on the way.
        contexts.append(build_context(file.SOPClassUID, file.file_meta.TransferSyntaxUID))
    # A class that is none of the box's business is refused, and the others stand.
    contexts.append(build_context("1.2.840.10008.5.1.4.1.1.2"))
    association = ae.associate("127.0.0.1", port, contexts=contexts, ae_title="ROENTGEN")
    assert association.is_established, "not established"
    rejected = [context.abstract_syntax for context in association.rejected_contexts]
    assert rejected == ["1.2.840.10008.5.1.4.1.1.2"], rejected
    print("echo %04x" % association.send_c_echo().Status)
    for file in files:
        for _ in range(2):
            print("store %04x" % association.send_c_store(file).Status)
    association.release()
    assert association.is_released
    for _ in range(10):
        stranger = AE(ae_title="STRANGER").associate("127.0.0.1", port, contexts=contexts, ae_title="ROENTGEN")
        # A rejection that is there before pynetdicom's other thread looks is taken by it for a connection that failed.
        if stranger.is_rejected:
            break
    assert stranger.is_rejected, "the stranger was let in"
    answer = stranger.acceptor.primitive
    print("stranger", answer.result, answer.result_source, answer.diagnostic)
